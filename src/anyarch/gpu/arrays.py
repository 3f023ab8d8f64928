"""Arrays in device memory, shaped as NumPy's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from anyarch.gpu import dlpack
from anyarch.gpu.dlpack import Tensor
from anyarch.gpu.errors import RangeError
from anyarch.gpu.interchange import FORMATS, TYPESTRS, describe, is_contiguous, product
from anyarch.gpu.memory import Allocation, Buffer

if TYPE_CHECKING:
    from anyarch.gpu.device import Device
    from anyarch.gpu.streams import Stream, StreamLike

__all__ = ["DeviceArray", "from_dlpack", "to_device"]


class DeviceArray(Buffer):
    """A buffer with a shape and an element type.

    It offers `__cuda_array_interface__` (on a GPU), `__array_interface__` and the buffer protocol
    (on the cpu), and DLPack. `typestr` is NumPy's text of the type ("<f4"), `strides` are in bytes.
    """

    __slots__ = ("_shape", "_strides", "_typestr", "_written_on")

    def __init__(
        self,
        device: Device,
        pointer: int,
        shape: tuple[int, ...],
        typestr: str,
        *,
        strides: tuple[int, ...] | None = None,
        allocation: Allocation | None = None,
        owner: object = None,
        read_only: bool = False,
    ) -> None:
        super().__init__(
            device,
            pointer,
            product(shape) * int(typestr[2:]),
            allocation=allocation,
            owner=owner,
            read_only=read_only,
        )
        self._set(shape, typestr, strides)

    def _set(self, shape: tuple[int, ...], typestr: str, strides: tuple[int, ...] | None) -> None:
        self._shape = shape
        self._typestr = typestr
        self._strides = strides
        self._written_on: Stream | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis."""
        return self._shape

    @property
    def typestr(self) -> str:
        """The type, as NumPy writes it."""
        return self._typestr

    @property
    def dtype(self) -> Any:
        """The type as a `numpy.dtype`; needs NumPy."""
        import numpy

        return numpy.dtype(self._typestr)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(self._typestr[2:])

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """How many elements."""
        return product(self._shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each axis."""
        if self._strides is not None:
            return self._strides
        strides, step = [], self.itemsize
        for extent in reversed(self._shape):
            strides.append(step)
            step *= extent
        return tuple(reversed(strides))

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("an array without axes has no length")
        return self._shape[0]

    def __getitem__(self, key: slice) -> DeviceArray:
        """Rows `start` to `stop` of the first axis, the same memory."""
        if not isinstance(key, slice) or key.step not in (None, 1) or not self._shape:
            raise RangeError("an array on a device is sliced along its first axis, step 1")
        start, stop, _ = key.indices(self._shape[0])
        stop = max(start, stop)
        shape = (stop - start, *self._shape[1:])
        return self._array_part(start * self.strides[0], shape, self._strides)

    def _array_part(
        self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...] | None
    ) -> DeviceArray:
        part = DeviceArray.__new__(DeviceArray)
        self._part(part, offset, product(shape) * self.itemsize)
        part._set(shape, self._typestr, strides)
        part._written_on = self._written_on
        return part

    def reshape(self, *shape: int | tuple[int, ...]) -> DeviceArray:
        """The same memory in another shape of as many elements; one extent may be -1."""
        extents: list[int] = []
        for extent in shape:
            extents += [extent] if isinstance(extent, int) else extent
        if extents.count(-1) == 1:
            known = -product(extents)
            if known and self.size % known == 0:
                extents[extents.index(-1)] = self.size // known
        if product(extents) != self.size or min(extents, default=0) < 0:
            raise RangeError(f"{self.size} elements do not have the shape {tuple(extents)}")
        if not self._contiguous():
            raise RangeError("only arrays in C order without gaps are reshaped")
        return self._array_part(0, tuple(extents), None)

    def _contiguous(self) -> bool:
        return self._strides is None

    def _ready(self, stream: StreamLike | None) -> None:
        if not self._contiguous():
            raise RangeError("only arrays in C order without gaps are copied")
        written_on = self._written_on
        if written_on is None or stream is written_on:
            return
        if stream is None:
            written_on.synchronize()
        else:
            self.device.stream(stream).wait(written_on)

    def to_host(self, out: Any = None, *, stream: StreamLike | None = None) -> Any:
        """A copy on the host: a `numpy.ndarray`, or a memoryview where there is no NumPy.

        With `out`, a writable array of the same size, copy there and return that. With a stream the
        copy is complete once the stream has done its work.
        """
        result = _empty_host(self._shape, self._typestr) if out is None else out
        if self.nbytes:
            self.copy_to(result, stream=stream)
        return result

    # The protocols.

    def _tensor(self) -> Tensor:
        device_type = dlpack.CUDA if self.device.backend == "cuda" else dlpack.CPU
        return Tensor(
            self.pointer,
            self._shape,
            self._strides,
            self._typestr,
            (device_type, self.device.ordinal),
            self._read_only,
            (self, self._allocation),
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.device.backend != "cuda":
            raise AttributeError(f"an array on {self.device.id} is no CUDA array")
        stream = self._written_on
        return {
            "shape": self._shape,
            "typestr": self._typestr,
            "data": (self.pointer if self.size else 0, self._read_only),
            "version": 3,
            "strides": self._strides,
            # 0 would be ambiguous; 1 is the default stream.
            "stream": None if stream is None else (stream.handle or 1),
        }

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if not self._on_host():
            raise AttributeError(f"an array on {self.device.id} is not in the host's memory")
        return {
            "shape": self._shape,
            "typestr": self._typestr,
            # The view, not the address: who has it may outlive this array.
            "data": Buffer.view.fget(self),  # type: ignore[attr-defined]  # the bytes, not the shape
            "version": 3,
            "strides": self._strides,
        }

    @property
    def view(self) -> memoryview:
        """The array where it lies, with its shape and type: memory of the cpu."""
        whole: memoryview = Buffer.view.fget(self)  # type: ignore[attr-defined]
        format_ = FORMATS.get(self._typestr)
        if format_ is None or not self._contiguous():
            raise RangeError(f"a memoryview cannot show {self._typestr!r}, strides {self.strides}")
        return _cast(whole, format_, self._shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor().device

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule. `stream` is the consumer's: -1 asks for no synchronisation, 1 and 2 are the
        default and the per-thread stream of CUDA, None stands for 1.
        """
        home = self._tensor().device
        target = home if dl_device is None else (int(dl_device[0]), int(dl_device[1]))
        if target not in (home, (dlpack.CPU, 0)):
            raise BufferError(f"an array on {self.device.id} is not exported to device {target}")
        if target != home:
            if copy is False:
                raise BufferError(f"an array on {self.device.id} reaches the host only as a copy")
            host = _empty_host(self._shape, self._typestr)
            self.to_host(host)
            tensor = describe(host)
            assert tensor is not None
            return dlpack.export_tensor(tensor._replace(owner=host), max_version is not None, True)
        if copy:
            duplicate = self.device.empty(self._shape, self._typestr)
            duplicate.copy_from(self)
            return dlpack.export_tensor(duplicate._tensor(), _is_versioned(max_version), True)
        if self.device.backend == "cuda":
            self._order_before(stream)
        elif stream is not None:
            raise BufferError("an array on the cpu takes no stream")
        if self._read_only and not _is_versioned(max_version):
            raise BufferError("a read-only array needs a consumer of DLPack 1.0")
        self._driver.lend(self.pointer, self._nbytes)
        return dlpack.export_tensor(self._tensor(), _is_versioned(max_version))

    def _order_before(self, stream: Any) -> None:
        """The consumer's stream waits for what was written to this array."""
        if stream == 0:
            raise BufferError("DLPack: stream 0 is ambiguous for CUDA; 1 is the default stream")
        if stream == -1 or self._written_on is None:
            return
        self.device.stream(1 if stream is None else stream).wait(self._written_on)


def _is_versioned(max_version: tuple[int, int] | None) -> bool:
    return max_version is not None and max_version[0] >= 1


def _empty_host(shape: tuple[int, ...], typestr: str) -> Any:
    try:
        import numpy
    except ImportError:
        pass
    else:
        return numpy.empty(shape, typestr)
    format_ = FORMATS.get(typestr)
    if format_ is None:
        raise RangeError(f"without NumPy there is no host array of {typestr!r}")
    whole = memoryview(bytearray(product(shape) * int(typestr[2:])))
    return _cast(whole, format_, shape)


def _cast(whole: Any, format_: str, shape: tuple[int, ...]) -> memoryview:
    """Bytes with a shape; a memoryview cannot have a shape of no elements."""
    shown: memoryview = whole.cast(format_, shape) if product(shape) else whole.cast(format_)
    return shown


def to_device(
    array: Any, device: Device | str | None = None, stream: StreamLike | None = None
) -> DeviceArray:
    """A copy of an array on a device, the best one if none is given.

    `array` is anything with the buffer protocol, `__array_interface__`, `__cuda_array_interface__`
    or DLPack. With a stream the copy is made in its order.
    """
    from anyarch.gpu.device import Device

    home = device if isinstance(device, Device) else Device(device)
    tensor = array._tensor() if isinstance(array, DeviceArray) else describe(array)
    if tensor is None:
        raise RangeError(f"{type(array).__name__} is no array")
    if not is_contiguous(tensor):
        if tensor.device[0] != dlpack.CPU:
            raise RangeError("only arrays in C order without gaps are copied from a device")
        array = _in_c_order(array, tensor)
    result = home.empty(tensor.shape, _plain(tensor.typestr), stream=stream)
    if result.nbytes:
        result.copy_from(array, stream=stream)
    result._written_on = None if stream is None else home.stream(stream)
    return result


def _plain(typestr: str) -> str:
    if typestr[0] == ">":
        raise RangeError(f"big-endian data ({typestr!r}) is not for a device: swap it first")
    if typestr[1] in "OSUMmVt":
        raise RangeError(f"elements of type {typestr!r} are not for a device")
    return typestr


def _in_c_order(array: Any, tensor: Tensor) -> Any:
    """The elements of a strided array of the host one after the other."""
    try:
        import numpy
    except ImportError:
        return memoryview(array).tobytes()
    return numpy.ascontiguousarray(array)


def from_dlpack(array: Any) -> DeviceArray:
    """An array of another library where it lies, by DLPack; nothing is copied."""
    from anyarch.gpu.device import Device

    kind, ordinal = array.__dlpack_device__()
    if kind in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        device = Device(f"cuda:{ordinal}")
        # 1: the producer's work is to be ordered before our default stream.
        arguments: dict[str, Any] = {"stream": 1}
    elif kind in (dlpack.CPU, dlpack.CUDA_HOST):
        device, arguments = Device("cpu"), {}
    else:
        raise RangeError(f"arrays of DLPack device type {kind} are not supported")
    try:
        capsule = array.__dlpack__(max_version=(1, 1), **arguments)
    except TypeError:  # a producer from before DLPack 1.0
        capsule = array.__dlpack__(**arguments)
    return wrap_tensor(device, dlpack.import_tensor(capsule))


def wrap_tensor(device: Device, tensor: Tensor) -> DeviceArray:
    """An array of another library as one of `device`, where it lies."""
    array = DeviceArray(
        device,
        tensor.pointer,
        tensor.shape,
        _plain(tensor.typestr),
        strides=None if is_contiguous(tensor) else tensor.strides,
        owner=tensor.owner,
        read_only=tensor.read_only,
    )
    device._driver.lend(array.pointer, array.nbytes)
    return array


def type_text(dtype: Any) -> str:
    """NumPy's type text of a dtype, a type text, a struct format, or `float` and `int`."""
    if isinstance(dtype, str) and len(dtype) >= 3 and dtype[0] in "<|=":
        return dtype.replace("=", "<")
    if isinstance(dtype, str) and dtype in TYPESTRS:
        return TYPESTRS[dtype]
    if isinstance(dtype, str) and _SHORT.fullmatch(dtype):
        return f"{'|' if dtype[1:] == '1' else '<'}{dtype}"
    simple = _NAMES.get(dtype) if isinstance(dtype, (str, type)) else None
    if simple is not None:
        return simple
    text = getattr(dtype, "str", None)  # a numpy.dtype
    if isinstance(text, str):
        return text
    try:
        import numpy
    except ImportError:
        raise RangeError(f"{dtype!r} is no element type; without NumPy say '<f4'") from None
    return str(numpy.dtype(dtype).str)


_SHORT: Final = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_NAMES: dict[Any, str] = {float: "<f8", int: "<i8", bool: "|b1", "bool": "|b1"} | {
    f"{word}{size}": f"{'|' if size == 8 else '<'}{letter}{size // 8}"
    for word, letter in (("int", "i"), ("uint", "u"), ("float", "f"), ("complex", "c"))
    for size in (8, 16, 32, 64, 128)
    if (word, size) not in (("float", 8), ("complex", 8), ("complex", 16), ("complex", 32))
    and (size < 128 or word == "complex")
}
