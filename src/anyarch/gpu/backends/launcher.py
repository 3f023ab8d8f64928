"""Launches without Python on the way: builtin functions whose bodies LLVM made.

A launch is a driver call of one to two microseconds, and an interpreter that converts arguments one
by one takes longer than that. `prepare` makes a builtin with everything baked in; `launcher` one
that converts the common kinds of arguments (exact ints and floats, NumPy scalars, our buffers, our
streams); `caller` one that calls a function of the driver with ints. What they cannot do, and
every failure, they leave to a Python function that does it all again and says what is wrong.

The functions find their data through the object that they are bound to: a bytes object whose
contents are the address of an array of 64-bit numbers. Where in objects the type and the contents
of bytes lie is checked at run time; an interpreter that differs gets no launcher.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Final

from anyarch.gpu.backend import LaunchConfig
from anyarch.gpu.backends.launcher_text import (
    BYTES_OFFSET,
    DOUBLE,
    FLOAT,
    INTEGER,
    MAX_CALL,
    MAX_NBYTES,
    MAX_PARAMETERS,
    MAX_SCALARS,
    POINTER,
    RAW,
    REAL,
    SCALAR_NUMBERS,
    SCALAR_OFFSET,
    SIGNED,
    SLOTS,
    TYPE_OFFSET,
    UNSIGNED,
    WORD,
    launcher_text,
)
from anyarch.gpu.signature import Parameter, Signature

__all__ = ["DriverTable", "NativeLauncher", "find_launcher"]

_METH_NOARGS: Final = 0x0004
_METH_FASTCALL: Final = 0x0080
_METH_FASTCALL_KEYWORDS: Final = _METH_FASTCALL | 0x0002


class _MethodDefinition(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Self(bytes):
    """What a builtin is bound to; it keeps what the native code points to."""

    keep: object


class DriverTable:
    """Addresses of the driver's functions, and the context and ring of one device."""

    __slots__ = ("context", "numbers", "owner", "ring")

    def __init__(self, address: Callable[[str], int], context: int, ring: int, owner: Any) -> None:
        self.context = context
        self.ring = ring
        self.owner = owner
        self.numbers = {
            "launch": address("cuLaunchKernel"),
            "cooperative": address("cuLaunchCooperativeKernel"),
            "get_current": address("cuCtxGetCurrent"),
            "push_current": address("cuCtxPushCurrent"),
            "pop_current": address("cuCtxPopCurrent"),
        }


class NativeLauncher:
    """Makes builtins that launch."""

    def __init__(self, prepared: int, launcher: int, caller: int) -> None:
        # A builtin keeps a pointer to its definition.
        self._prepared = _MethodDefinition(b"start", prepared, _METH_NOARGS, b"Start the kernel.")
        self._launcher = _MethodDefinition(
            b"launch",
            launcher,
            _METH_FASTCALL_KEYWORDS,
            b"launch(grid, block, *args, shared_memory=0, stream=None, cooperative=False)",
        )

        self._caller = _MethodDefinition(
            b"call", caller, _METH_FASTCALL, b"Call a function of the driver with ints."
        )
        # Shared by all launchers, so that one that was made before NumPy was imported sees it too.
        self._scalars = (ctypes.c_uint64 * (SCALAR_NUMBERS * MAX_SCALARS + 1))()

    def prepare(
        self,
        table: DriverTable,
        cell: ctypes.c_uint64,
        number: int,
        config: LaunchConfig,
        parameters: int,
        stream: int,
        slow: Callable[[], None],
    ) -> Callable[[], None]:
        """A builtin that launches the function in `cell`; `slow` does what it could not do.

        The builtin keeps `slow`, which is to keep what `parameters` points to.
        """
        (grid_x, grid_y, grid_z), (block_x, block_y, block_z) = config.grid, config.block
        numbers = _common(table, cell, number, slow) | {
            "grid_xy": grid_x | grid_y << 32,
            "grid_z_block_x": grid_z | block_x << 32,
            "block_yz": block_y | block_z << 32,
            "shared": config.shared_memory,
            "stream": stream,
            "parameters": parameters,
        }
        if config.cooperative:
            numbers["launch"] = table.numbers["cooperative"]
        return _builtin(self._prepared, numbers, (table, cell, slow))

    def launcher(
        self,
        table: DriverTable,
        cell: ctypes.c_uint64,
        number: int,
        signature: Signature,
        slow: Callable[..., None],
    ) -> Callable[..., None] | None:
        """A builtin with the signature of `Kernel.launch`; None for parameters it cannot do."""
        from anyarch.gpu.arrays import DeviceArray
        from anyarch.gpu.memory import Buffer
        from anyarch.gpu.streams import Stream

        kinds = [_kind(parameter) for parameter in signature.parameters]
        if None in kinds or len(kinds) > MAX_PARAMETERS or signature.nbytes > MAX_NBYTES:
            return None
        flat = [
            entry
            for kind, parameter in zip(kinds, signature.parameters)
            for entry in (kind or 0, parameter.offset, parameter.nbytes)
        ]
        kind_table = (ctypes.c_uint64 * max(len(flat), 1))(*flat)
        numbers = _common(table, cell, number, slow) | {
            "count": len(kinds),
            "kinds": ctypes.addressof(kind_table),
            "scalars": ctypes.addressof(self._scalars),
            "as_integer": _api("PyLong_AsLongLongAndOverflow"),
            "as_real": _api("PyFloat_AsDouble"),
            "get_attribute": _api("PyObject_GetAttr"),
            "decref": _api("Py_DecRef"),
            "clear_error": _api("PyErr_Clear"),
            "int_type": id(int),
            "float_type": id(float),
            "buffer_type": id(Buffer),
            "array_type": id(DeviceArray),
            "stream_type": id(Stream),
            "tuple_type": id(tuple),
            "driver": id(table.owner),
            "tuple_item": _api("PyTuple_GetItem"),
            "tuple_size": _api("PyTuple_Size"),
        }
        numbers |= {slot: id(name) for slot, name in _NAMES.items()}
        self.learn_scalars()
        return _builtin(self._launcher, numbers, (table, cell, slow, kind_table))

    def learn_scalars(self) -> None:
        """Convert NumPy's scalars too, if NumPy is imported by now."""
        if "numpy" not in sys.modules or self._scalars[0]:
            return
        entries = _find_scalars()
        # The first type last: native code takes the table as empty until then.
        for place, entry in reversed(list(enumerate(entries))):
            self._scalars[place] = entry

    def caller(
        self, table: DriverTable, function: int, count: int, slow: Callable[..., int]
    ) -> Callable[..., int]:
        """A builtin that calls a function of the driver with `count` ints and returns its result;
        `slow` gets what are no ints.
        """
        if count > MAX_CALL:
            raise ValueError(f"{count} arguments; a caller passes {MAX_CALL}")
        numbers = _common(table, ctypes.c_uint64(0), 0, slow) | {
            "launch": function,
            "count": count,
            "as_integer": _api("PyLong_AsLongLongAndOverflow"),
            "from_integer": _api("PyLong_FromLong"),
            "int_type": id(int),
        }
        made: Any = _builtin(self._caller, numbers, (table, slow))
        return made  # type: ignore[no-any-return]


_NAMES: Final = {
    "pointer_name": sys.intern("_pointer"),
    "driver_name": sys.intern("_driver"),
    "handle_name": sys.intern("_handle"),
    "stream_name": sys.intern("stream"),
    "shared_name": sys.intern("shared_memory"),
}


def _kind(parameter: Parameter) -> int | None:
    if parameter.count is not None:
        return None
    if parameter.type in ("f32", "f64"):
        return FLOAT if parameter.type == "f32" else DOUBLE
    if parameter.type[:1] in ("u", "s"):
        return WORD if parameter.nbytes == 8 else INTEGER
    if parameter.nbytes == 8 and parameter.type in ("b64", ""):
        return POINTER
    if parameter.nbytes in (1, 2, 4) and parameter.type[:1] in ("b", ""):
        return RAW
    return None


def _find_scalars() -> list[int]:
    """NumPy's types of scalars whose value lies where it is expected."""
    import numpy

    entries: list[int] = []
    for name, kind in (
        *((f"int{size}", SIGNED) for size in (8, 16, 32, 64)),
        *((f"uint{size}", UNSIGNED) for size in (8, 16, 32, 64)),
        ("longlong", SIGNED),
        ("ulonglong", UNSIGNED),
        ("float32", REAL),
        ("float64", REAL),
    ):
        type_ = getattr(numpy, name)
        probe = type_(113)
        if ctypes.string_at(id(probe) + SCALAR_OFFSET, probe.nbytes) == probe.tobytes():
            entries += (id(type_), kind, probe.nbytes)
    return entries


def _api(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def _common(
    table: DriverTable, cell: ctypes.c_uint64, number: int, slow: Callable[..., Any]
) -> dict[str, int]:
    return table.numbers | {
        "save_thread": _api("PyEval_SaveThread"),
        "restore_thread": _api("PyEval_RestoreThread"),
        "context": table.context,
        "function_cell": ctypes.addressof(cell),
        "ring": table.ring,
        "kernel": number,
        "slow": id(slow),
        "vectorcall": _api("PyObject_Vectorcall"),
        "none": id(None),
        "incref": _api("Py_IncRef"),
    }


_new_builtin = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.POINTER(_MethodDefinition), ctypes.py_object, ctypes.c_void_p
)(("PyCFunction_NewEx", ctypes.pythonapi))


def _builtin(
    definition: _MethodDefinition, numbers: dict[str, int], keep: object
) -> Callable[..., None]:
    array = (ctypes.c_uint64 * len(SLOTS))(*(numbers.get(slot, 0) for slot in SLOTS))
    bound = _Self(ctypes.addressof(array).to_bytes(8, "little"))
    bound.keep = (array, keep)
    made: Callable[..., None] = _new_builtin(definition, bound, None)
    return made


_launcher: list[NativeLauncher | None] = []


def find_launcher() -> NativeLauncher | None:
    """The launcher of this process, compiled once and cached; None where it cannot be used."""
    if not _launcher:
        _launcher.append(_make())
    return _launcher[0]


def _make() -> NativeLauncher | None:
    from anyarch.errors import CompileError, HostError

    if not _objects_lie_as_expected():
        return None
    try:
        from anyarch import emit
        from anyarch.emit.compile import compile_blob
        from anyarch.engine.cache import CodeCache, key_for, source_digest, toolchain_key
        from anyarch.host.code import load

        text = launcher_text()
        key = key_for("gpu launcher", text, source_digest(emit.__path__), toolchain_key())
        code = load(CodeCache().build_once(key, lambda: compile_blob(text)))
    except (CompileError, HostError, ImportError, OSError):
        return None  # Python does it all, only slower
    return NativeLauncher(*map(code.address, ("aa_gpu_prepared", "aa_gpu_launch", "aa_gpu_call")))


def _objects_lie_as_expected() -> bool:
    """Whether types and the contents of bytes are where the text below reads them."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    probe = _Self(b"probe678")
    return (
        object.__basicsize__ == TYPE_OFFSET + 8
        and bytes.__basicsize__ == BYTES_OFFSET + 1
        and ctypes.c_uint64.from_address(id(probe) + TYPE_OFFSET).value == id(_Self)
        and ctypes.string_at(id(probe) + BYTES_OFFSET, 8) == probe
    )
