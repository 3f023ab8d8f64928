"""Packs launch arguments into the block that a kernel's parameters lie in."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, Final, TypeAlias

from anyarch.gpu.errors import ArgumentError
from anyarch.gpu.signature import Parameter, Signature

__all__ = ["Packer", "Resolver"]

Resolver: TypeAlias = Callable[[object], int | None]
"""The device pointer of an array or buffer; None for what is none; raises for one of elsewhere."""

_Converter: TypeAlias = Callable[[Any, Resolver], Any]
_INTEGER_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_POINTER_NBYTES: Final = 8


class Packer:
    """Packs the arguments of one kernel."""

    __slots__ = ("_converters", "_kernel", "_parameters", "_struct")

    def __init__(self, kernel: str, signature: Signature) -> None:
        self._kernel = kernel
        self._parameters = signature.parameters
        self._converters: list[_Converter] = []
        layout = "<"
        end = 0
        for parameter in signature.parameters:
            layout += f"{parameter.offset - end}x"
            code, converter = _converter(parameter)
            layout += code
            self._converters.append(converter)
            end = parameter.offset + parameter.nbytes
        self._struct = struct.Struct(layout)

    def pack(self, arguments: Sequence[object], resolve: Resolver) -> bytes:
        """The parameter block; ArgumentError names the parameter that does not fit."""
        if len(arguments) != len(self._parameters):
            raise ArgumentError(
                f"kernel {self._kernel!r} takes {len(self._parameters)} arguments"
                f"{self._listed()}, {len(arguments)} given"
            )
        values = []
        for number, converter in enumerate(self._converters):
            try:
                values.append(converter(arguments[number], resolve))
            except (TypeError, ValueError, OverflowError) as error:
                raise self._error(number, arguments[number], error) from None
        return self._struct.pack(*values)

    def _listed(self) -> str:
        return f" ({', '.join(map(str, self._parameters))})" if self._parameters else ""

    def _error(self, number: int, value: object, error: Exception) -> ArgumentError:
        parameter = self._parameters[number]
        name = f" {parameter.name!r}" if parameter.name else ""
        return ArgumentError(
            f"kernel {self._kernel!r}, parameter {number}{name} ({parameter}): {error}"
        )


def _converter(parameter: Parameter) -> tuple[str, _Converter]:
    """The struct code of a parameter and what turns an argument into its value."""
    nbytes = parameter.nbytes
    if parameter.count is not None or (not parameter.type and nbytes != _POINTER_NBYTES):
        return f"{nbytes}s", lambda value, resolve: _raw(value, nbytes)
    kind = parameter.type[:1]
    if parameter.type == "f32":
        return "f", lambda value, resolve: _real(value, "<f")
    if parameter.type == "f64":
        return "d", lambda value, resolve: _real(value, "<d")
    if parameter.type == "f16":
        return "e", lambda value, resolve: _real(value, "<e")
    if kind in ("u", "s"):
        low, high = -(1 << (8 * nbytes - 1)), (1 << (8 * nbytes)) - 1
        if nbytes == _POINTER_NBYTES:
            return "Q", lambda value, resolve: _pointer_or_integer(value, resolve, low, high)
        return _INTEGER_CODES[nbytes], lambda value, resolve: _integer(value, low, high)
    if nbytes == _POINTER_NBYTES:  # .b64, references, and what a cubin only gives a size of
        return "8s", _pointer_or_raw
    return f"{nbytes}s", lambda value, resolve: _raw(value, nbytes)


def _integer(value: object, low: int, high: int) -> int:
    try:
        number = index(value)  # type: ignore[arg-type]  # it says what has no integer value
    except TypeError:
        raise TypeError(f"expected an integer, got {_shown(value)}") from None
    if not low <= number <= high:
        raise ValueError(f"{number} is outside {low}…{high}")
    return number & high


def _real(value: Any, code: str) -> float:
    if isinstance(value, (str, bytes)) or not (
        hasattr(value, "__float__") or hasattr(value, "__index__")
    ):
        raise TypeError(f"expected a number, got {_shown(value)}")
    if getattr(value, "ndim", 0):
        raise TypeError(f"expected a number, got {_shown(value)}")
    number = float(value)
    try:
        struct.pack(code, number)
    except OverflowError:
        raise ValueError(f"{number!r} is too large") from None
    return number


def _pointer_or_integer(value: object, resolve: Resolver, low: int, high: int) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return _integer(value, low, high)
    pointer = resolve(value)
    if pointer is not None:
        return pointer
    if not hasattr(value, "__index__"):
        raise TypeError(f"expected a buffer, an array or an integer, got {_shown(value)}")
    return _integer(value, low, high)


def _pointer_or_raw(value: object, resolve: Resolver) -> bytes:
    if value is None:
        return bytes(_POINTER_NBYTES)
    if not isinstance(value, (int, bytes, bytearray)) and not _is_scalar(value):
        pointer = resolve(value)
        if pointer is not None:
            return pointer.to_bytes(_POINTER_NBYTES, "little")
    return _raw(value, _POINTER_NBYTES)


def _raw(value: Any, nbytes: int) -> bytes:
    """Bytes, a NumPy scalar, or an object with the buffer protocol such as a ctypes structure."""
    if isinstance(value, (bool, int, float)) and not _is_scalar(value):
        raise TypeError(
            f"the type of this parameter is not known, so that {value!r} has no certain form: "
            f"give a NumPy scalar or {nbytes} bytes"
        )
    try:
        data = value.tobytes() if _is_scalar(value) else memoryview(value).tobytes()
    except TypeError:
        raise TypeError(f"expected {nbytes} bytes or a NumPy scalar, got {_shown(value)}") from None
    if len(data) != nbytes:
        raise ValueError(f"expected {nbytes} bytes, got {len(data)} ({_shown(value)})")
    return bytes(data)


def _is_scalar(value: object) -> bool:
    """Whether it is a NumPy scalar, without importing NumPy."""
    return hasattr(value, "dtype") and getattr(value, "ndim", None) == 0


def _shown(value: object) -> str:
    text = repr(value)
    kind = type(value).__name__
    return f"{kind} {text}" if len(text) <= 40 and "\n" not in text else kind
