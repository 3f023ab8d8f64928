"""Reads arrays of other libraries where they lie, through the protocols that they offer.

`__cuda_array_interface__` v3, `__array_interface__` v3, DLPack 1.x, the buffer protocol.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from typing import Any, Final

from anyarch.gpu import dlpack
from anyarch.gpu.dlpack import Tensor
from anyarch.gpu.errors import RangeError

__all__ = ["FORMATS", "TYPESTRS", "describe", "is_contiguous", "product", "stream_of"]

# Formats of the buffer protocol (struct module) by NumPy's type text, and back.
FORMATS: Final = {
    "|b1": "?",
    "|i1": "b",
    "|u1": "B",
    "<i2": "h",
    "<u2": "H",
    "<i4": "i",
    "<u4": "I",
    "<i8": "q",
    "<u8": "Q",
    "<f2": "e",
    "<f4": "f",
    "<f8": "d",
}
TYPESTRS: Final = {format_: typestr for typestr, format_ in FORMATS.items()} | {
    "c": "|u1",
    "l": "<i8",
    "L": "<u8",
    "n": "<i8",
    "N": "<u8",
    "Zf": "<c8",
    "Zd": "<c16",
}


def describe(value: Any) -> Tensor | None:
    """Where an array of another library lies and how; None for what offers no protocol."""
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None:
        return _from_interface(interface, value, "__cuda_array_interface__", dlpack.CUDA)
    interface = getattr(value, "__array_interface__", None)
    if interface is not None and interface.get("data") is not None:
        return _from_interface(interface, value, "__array_interface__", dlpack.CPU)
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _from_dlpack(value)
    try:
        view = memoryview(value)
    except TypeError:
        return None
    return _from_buffer(view)


def stream_of(value: Any) -> int | None:
    """The stream on which the producer's work may be outstanding, if it names one."""
    interface = getattr(value, "__cuda_array_interface__", None)
    stream = None if interface is None else interface.get("stream")
    if stream == 0:
        raise RangeError("__cuda_array_interface__: stream 0 is not allowed, it is ambiguous")
    return stream


def is_contiguous(tensor: Tensor) -> bool:
    """Whether the elements lie in C order without gaps."""
    if tensor.strides is None:
        return True
    step = int(tensor.typestr[2:])
    for extent, stride in zip(reversed(tensor.shape), reversed(tensor.strides)):
        if extent == 0:
            return True
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True


def _from_interface(interface: Any, owner: object, name: str, device_type: int) -> Tensor:
    ordinal = _cuda_ordinal(owner) if device_type == dlpack.CUDA else 0
    try:
        data = interface["data"]
        if not isinstance(data, tuple):  # a buffer, which __array_interface__ allows
            view = memoryview(data)
            data, owner = (_address(view), view.readonly), (owner, view)
        pointer, read_only = data
        shape, typestr = tuple(interface["shape"]), interface["typestr"]
        strides = interface.get("strides")
    except (KeyError, TypeError, ValueError) as error:
        raise RangeError(f"{name} is not as the protocol says: {error}") from None
    if interface.get("mask") is not None:
        raise RangeError(f"{name}: masked arrays are not supported")
    return Tensor(
        pointer or 0,
        shape,
        None if strides is None else tuple(strides),
        typestr,
        (device_type, ordinal),
        bool(read_only),
        owner,
    )


def _cuda_ordinal(owner: Any) -> int:
    """The GPU of a CUDA array, which its interface does not say; -1 where nothing does."""
    device = getattr(owner, "__dlpack_device__", None)
    return int(device()[1]) if device is not None else -1


def _from_dlpack(value: Any) -> Tensor:
    try:
        capsule = value.__dlpack__(max_version=(1, 1))
    except TypeError:  # a producer from before DLPack 1.0
        capsule = value.__dlpack__()
    return dlpack.import_tensor(capsule)


def _from_buffer(view: memoryview) -> Tensor:
    typestr = TYPESTRS.get(view.format.lstrip("@=<"))
    if typestr is None or sys.byteorder != "little":
        raise RangeError(f"buffers of format {view.format!r} are not supported")
    return Tensor(
        _address(view),
        view.shape or (),
        None if view.c_contiguous else view.strides,
        typestr,
        (dlpack.CPU, 0),
        view.readonly,
        view,
    )


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("rest", ctypes.c_void_p * 5),
    )


_PYBUF_FULL_RO: Final = 0x11C  # PyBUF_INDIRECT | PyBUF_FORMAT
_get_buffer = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int
)(("PyObject_GetBuffer", ctypes.pythonapi))
_release_buffer = ctypes.PYFUNCTYPE(None, ctypes.POINTER(_PyBuffer))(
    ("PyBuffer_Release", ctypes.pythonapi)
)


def _address(view: memoryview) -> int:
    """The address of a buffer's first element, also of a read-only one."""
    described = _PyBuffer()
    _get_buffer(view, described, _PYBUF_FULL_RO)
    try:
        return described.buf or 0
    finally:
        _release_buffer(described)


def product(extents: Iterable[int]) -> int:
    """The product of extents; 1 of none."""
    result = 1
    for extent in extents:
        result *= extent
    return result
