"""DLPack 1.1: the structures, and the capsules that carry them.

https://dmlc.github.io/dlpack/latest/c_api.html and python_spec.html
"""

from __future__ import annotations

import ctypes
from typing import Any, Final, NamedTuple

from anyarch.gpu.errors import RangeError

__all__ = ["CPU", "CUDA", "CUDA_HOST", "CUDA_MANAGED", "Tensor", "export_tensor", "import_tensor"]

CPU: Final = 1
CUDA: Final = 2
CUDA_HOST: Final = 3
CUDA_MANAGED: Final = 13

_READ_ONLY: Final = 1
_IS_COPIED: Final = 2
_VERSION: Final = (1, 1)
_CODES: Final = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_LETTERS: Final = {code: letter for letter, code in _CODES.items()}


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _DLTensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    )


class Tensor(NamedTuple):
    """A described array. `strides` are in bytes; None is C order. `typestr` is NumPy's."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    typestr: str
    device: tuple[int, int]
    read_only: bool = False
    owner: object = None


_api = ctypes.pythonapi
_capsule_new = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", _api))
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_capsule_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_capsule_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", _api)
)
# The destructor receives a capsule whose count of references is zero: a raw pointer, no py_object.
_raw_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)

# A capsule keeps a pointer to its name, not a copy.
_LEGACY = ctypes.create_string_buffer(b"dltensor")
_LEGACY_USED = ctypes.create_string_buffer(b"used_dltensor")
_VERSIONED = ctypes.create_string_buffer(b"dltensor_versioned")
_VERSIONED_USED = ctypes.create_string_buffer(b"used_dltensor_versioned")

_exported: dict[int, object] = {}  # by address of the structure: it, its arrays, and the owner


def export_tensor(tensor: Tensor, versioned: bool, copied: bool = False) -> Any:
    """A capsule of the array; `tensor.owner` lives until the consumer has done with it."""
    ndim = len(tensor.shape)
    itemsize = int(tensor.typestr[2:])
    shape = (ctypes.c_int64 * ndim)(*tensor.shape)
    strides = _element_strides(tensor, itemsize)
    steps = (ctypes.c_int64 * ndim)(*strides)
    managed = _ManagedVersioned() if versioned else _Managed()
    if isinstance(managed, _ManagedVersioned):
        managed.major, managed.minor = _VERSION
        managed.flags = (_READ_ONLY if tensor.read_only else 0) | (_IS_COPIED if copied else 0)
    described = managed.tensor
    described.data = tensor.pointer
    described.device_type, described.device_id = tensor.device
    described.ndim = ndim
    letter = tensor.typestr[1]
    if letter not in _CODES or tensor.typestr[0] == ">":
        raise RangeError(f"DLPack has no type for {tensor.typestr!r}")
    described.code, described.bits, described.lanes = _CODES[letter], itemsize * 8, 1
    described.shape = shape
    described.strides = steps
    managed.deleter = ctypes.cast(_delete, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    _exported[address] = (managed, shape, steps, tensor.owner)
    name = _VERSIONED if versioned else _LEGACY
    return _capsule_new(address, name, ctypes.cast(_destroy, ctypes.c_void_p))


def _element_strides(tensor: Tensor, itemsize: int) -> tuple[int, ...]:
    if tensor.strides is not None:
        if any(stride % itemsize for stride in tensor.strides):
            raise RangeError("DLPack needs strides that are multiples of the element size")
        return tuple(stride // itemsize for stride in tensor.strides)
    strides, step = [], 1
    for extent in reversed(tensor.shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


@_DELETER  # type: ignore[untyped-decorator]  # of ctypes
def _delete(address: int) -> None:
    _exported.pop(address, None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]  # of ctypes
def _destroy(capsule: int) -> None:
    """A capsule that nobody consumed."""
    for name in (_VERSIONED, _LEGACY):
        if _raw_is_valid(capsule, name):
            address = _raw_pointer(capsule, name)
            _exported.pop(address, None)


class _Imported:
    """Calls the producer's deleter once, when nothing refers to the array any more."""

    __slots__ = ("_address", "_deleter")

    def __init__(self, address: int, deleter: int | None) -> None:
        self._address = address
        self._deleter = deleter

    def __del__(self) -> None:
        if self._deleter:
            _DELETER(self._deleter)(self._address)


def import_tensor(capsule: object) -> Tensor:
    """Take over the array of a capsule; RangeError for what is none or cannot be used."""
    for name, used, kind in (
        (_VERSIONED, _VERSIONED_USED, _ManagedVersioned),
        (_LEGACY, _LEGACY_USED, _Managed),
    ):
        if _capsule_is_valid(capsule, name.value):
            address = _capsule_pointer(capsule, name.value)
            managed = kind.from_address(address)
            _capsule_rename(capsule, used)
            owner = _Imported(address, managed.deleter)
            if isinstance(managed, _ManagedVersioned) and managed.major > _VERSION[0]:
                raise RangeError(
                    f"the producer gave DLPack {managed.major}.{managed.minor}, "
                    f"{_VERSION[0]}.x was asked for"
                )
            read_only = isinstance(managed, _ManagedVersioned) and bool(managed.flags & _READ_ONLY)
            return _describe(managed.tensor, owner, read_only)
    raise RangeError("not a DLPack capsule, or one that was consumed already")


def _describe(tensor: Any, owner: object, read_only: bool) -> Tensor:
    letter = _LETTERS.get(tensor.code)
    if letter is None or tensor.lanes != 1 or tensor.bits % 8:
        raise RangeError(
            f"DLPack type {tensor.code} of {tensor.bits} bits, {tensor.lanes} lanes: not supported"
        )
    itemsize = tensor.bits // 8
    order = "|" if itemsize == 1 else "<"
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = None
    if tensor.strides:
        strides = tuple(step * itemsize for step in tensor.strides[: tensor.ndim])
    return Tensor(
        (tensor.data or 0) + tensor.byte_offset,
        shape,
        strides,
        f"{order}{letter}{itemsize}",
        (tensor.device_type, tensor.device_id),
        read_only,
        owner,
    )
