"""Modules of loaded code, and kernels: looking at them and launching them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from anyarch.gpu.arguments import Packer
from anyarch.gpu.backend import (
    BackendModule,
    Handle,
    Image,
    KernelAttributes,
    LaunchConfig,
    Needs,
    Occupancy,
)
from anyarch.gpu.errors import ArgumentError, ClosedError, RangeError, UnknownNameError
from anyarch.gpu.memory import Buffer
from anyarch.gpu.signature import Signature

if TYPE_CHECKING:
    from anyarch.gpu.device import Device
    from anyarch.gpu.streams import Stream, StreamLike

__all__ = ["Extent", "Kernel", "Module"]

Extent: TypeAlias = int | tuple[int, ...]
"""A grid or a block: x, or (x, y), or (x, y, z)."""

_MAX_CONFIGS: Final = 64
_MAX_SHARED_MEMORY: Final = (1 << 31) - 1


class Module:
    """Loaded code: a mapping of the names of its kernels to kernels.

    It stays loaded while it or one of its kernels is referred to, or until `unload`.
    """

    __slots__ = ("__weakref__", "_device", "_kernels", "_loaded", "_origin")

    def __init__(self, device: Device, images: Sequence[Image], options: Mapping[str, Any]) -> None:
        self._loaded: BackendModule | None = None
        self._device = device
        self._origin = " and ".join(image.origin for image in images)
        self._kernels: dict[str, Kernel] = {}
        self._loaded = device._driver.load(images, options)

    @property
    def device(self) -> Device:
        """Where it is loaded."""
        return self._device

    @property
    def log(self) -> str:
        """What the compiler or linker had to say."""
        return self._module().log

    def _module(self) -> BackendModule:
        if self._loaded is None:
            raise ClosedError(f"the module from {self._origin} was used after it was unloaded")
        return self._loaded

    def __getitem__(self, name: str) -> Kernel:
        """A kernel; UnknownNameError, a KeyError, names those that there are."""
        kernel = self._kernels.get(name)
        if kernel is None or self._loaded is None:
            try:
                handle, signature = self._module().kernel(name)
            except KeyError:
                known = ", ".join(self._module().kernels()) or "none"
                raise UnknownNameError(
                    f"no kernel {name!r} in {self._origin}; its kernels: {known}"
                ) from None
            kernel = self._kernels[name] = Kernel(self, name, handle, signature)
        return kernel

    def __iter__(self) -> Iterator[str]:
        return iter(self._module().kernels())

    def __len__(self) -> int:
        return len(self._module().kernels())

    def __contains__(self, name: object) -> bool:
        return name in self._module().kernels()

    def variable(self, name: str) -> Buffer:
        """The memory of a global or constant variable; UnknownNameError if there is none."""
        try:
            pointer, nbytes = self._module().variable(name)
        except KeyError:
            raise UnknownNameError(f"no variable {name!r} in {self._origin}") from None
        return Buffer(self._device, pointer, nbytes, owner=self)

    def __repr__(self) -> str:
        state = "unloaded" if self._loaded is None else f"{len(self)} kernels"
        return f"<Module from {self._origin} on {self._device.id}: {state}>"

    def unload(self) -> None:
        """Free it, once the device's work is done; its kernels cannot be launched any more."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            for kernel in self._kernels.values():
                kernel._retire()
            self._kernels.clear()
            loaded.unload()

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *_: object) -> None:
        self.unload()


class Kernel:
    """A function that runs on the device, once for each thread of a grid of blocks.

    `launch(grid, block, *args, shared_memory=0, stream=None, cooperative=False)` starts it and
    returns. `grid` and `block` are an int or up to three. Arguments, by the kernel's parameters:
    Python ints and floats within the range of the type (-2³¹…2³²-1 for 32 bits, since compilers
    write .u32 for int), NumPy scalars, buffers, arrays of this and other libraries on the same
    device, None for a null pointer, structures as bytes. Parameters without a type (.bN, and those
    of cubins) need NumPy scalars or bytes. A wrong count, type or range is an ArgumentError that
    names kernel and parameter. `kernel[grid, block, stream, shared_memory](*args)` is the same.
    """

    __slots__ = (
        "__weakref__",
        "_configs",
        "_device",
        "_handle",
        "_module",
        "_name",
        "_packer",
        "_prepared",
        "_signature",
        "launch",
    )

    launch: Callable[..., None]

    def __init__(self, module: Module, name: str, handle: Handle, signature: Signature) -> None:
        self._module = module
        self._device = module.device
        self._name = name
        self._handle: Handle | None = handle
        self._signature = signature
        self._packer = Packer(name, signature)
        self._prepared: weakref.WeakSet[Needs] = weakref.WeakSet()
        self._configs: dict[tuple[object, ...], LaunchConfig] = {}
        self.launch = module.device._driver.bind(handle, self._launch)

    @property
    def name(self) -> str:
        """Its name in the module."""
        return self._name

    @property
    def device(self) -> Device:
        """Where it is loaded."""
        return self._device

    @property
    def signature(self) -> Signature:
        """Its parameters."""
        return self._signature

    def _get_handle(self) -> Handle:
        if self._handle is None:
            raise self._gone()
        return self._handle

    def _retire(self) -> None:
        self._handle = None
        self.launch = self._launch
        for needs in self._prepared:
            needs.end(self._gone())

    def _gone(self) -> ClosedError:
        return ClosedError(f"kernel {self._name!r} was used after its module was unloaded")

    def __repr__(self) -> str:
        listed = ", ".join(map(str, self._signature.parameters))
        return f"<Kernel {self._name}({listed}) on {self._device.id}>"

    # Launches.

    def _launch(
        self,
        grid: Extent,
        block: Extent,
        *args: Any,
        shared_memory: int = 0,
        stream: StreamLike | None = None,
        cooperative: bool = False,
    ) -> None:
        config, on, parameters = self._checked(
            grid, block, args, shared_memory, stream, cooperative
        )
        self._device._driver.launch(self._get_handle(), config, parameters, on.handle)

    def __getitem__(self, configuration: tuple[Any, ...]) -> Callable[..., None]:
        """What launches it with `[grid, block]`, `[…, stream]` or `[…, stream, shared_memory]`."""
        if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
            raise ArgumentError(
                f"kernel {self._name!r}: say kernel[grid, block, stream, shared_memory](…)"
            )
        grid, block, stream, shared_memory = configuration + (None, 0)[len(configuration) - 2 :]

        def launch(*args: Any) -> None:
            self.launch(grid, block, *args, stream=stream, shared_memory=shared_memory)

        return launch

    def prepare(
        self,
        grid: Extent,
        block: Extent,
        *args: Any,
        shared_memory: int = 0,
        stream: StreamLike | None = None,
        cooperative: bool = False,
    ) -> Callable[[], None]:
        """A function without arguments that does what `launch` with these would, faster.

        Arguments are checked here, once, and kept. After a buffer among them or the module was
        freed the function raises ClosedError.
        """
        config, on, parameters = self._checked(
            grid, block, args, shared_memory, stream, cooperative
        )
        needs = Needs((self, args, on))
        self._prepared.add(needs)
        for argument in args:
            if isinstance(argument, Buffer):
                argument._end_with_it(needs)
        return self._device._driver.prepare(
            self._get_handle(), config, parameters, on.handle, needs
        )

    def _checked(
        self,
        grid: Extent,
        block: Extent,
        args: tuple[Any, ...],
        shared_memory: int,
        stream: StreamLike | None,
        cooperative: bool,
    ) -> tuple[LaunchConfig, Stream, bytes]:
        on = self._device.stream(stream)
        device = self._device

        def resolve(value: object) -> int | None:
            return device._pointer_for_launch(value, on)

        config = self._config(grid, block, shared_memory, cooperative)
        return config, on, self._packer.pack(args, resolve)

    def _config(
        self, grid: Extent, block: Extent, shared_memory: int, cooperative: bool
    ) -> LaunchConfig:
        """The checked configuration; the last ones are kept, since most launches are repeated."""
        key = (grid, block, shared_memory, cooperative)
        try:
            known = self._configs.get(key)
        except TypeError:  # a list
            known = None
        if known is None:
            extents = (self._extents("grid", grid), self._extents("block", block))
            known = LaunchConfig(*extents, shared_memory, cooperative)
            self._check_limits(known)
            if len(self._configs) >= _MAX_CONFIGS:
                self._configs.clear()
            self._configs[(*extents, shared_memory, cooperative)] = known
            if isinstance(grid, int) and isinstance(block, int):
                self._configs[key] = known
        return known

    def _extents(self, what: str, extent: Extent) -> tuple[int, int, int]:
        given = (extent,) if isinstance(extent, int) else tuple(extent)
        try:
            whole = tuple(number.__index__() for number in given)
        except AttributeError:
            whole = ()
        if not 1 <= len(whole) <= 3 or min(whole) < 1:
            raise RangeError(
                f"kernel {self._name!r}: the {what} is one to three numbers above 0, not {extent!r}"
            )
        x, y, z = (*whole, 1, 1)[:3]
        return x, y, z

    def _check_limits(self, config: LaunchConfig) -> None:
        properties = self._device.properties
        for what, given, limits in (
            ("grid", config.grid, properties.max_grid),
            ("block", config.block, properties.max_block),
        ):
            if any(number > limit for number, limit in zip(given, limits)):
                raise RangeError(
                    f"kernel {self._name!r}: the {what} {given} exceeds the device's {limits}"
                )
        threads = config.block[0] * config.block[1] * config.block[2]
        if threads > properties.max_threads_per_block:
            raise RangeError(
                f"kernel {self._name!r}: {threads} threads a block, the device allows "
                f"{properties.max_threads_per_block}"
            )
        if not 0 <= config.shared_memory <= _MAX_SHARED_MEMORY:
            raise RangeError(
                f"kernel {self._name!r}: {config.shared_memory} bytes of shared memory"
            )
        if config.shared_memory > properties.shared_memory_per_block_optin:
            raise RangeError(
                f"kernel {self._name!r}: {config.shared_memory:,} bytes of dynamic shared memory, "
                f"the device has {properties.shared_memory_per_block_optin:,} for a block"
            )
        if config.cooperative:
            blocks = config.grid[0] * config.grid[1] * config.grid[2]
            most = self.cooperative_blocks(threads, config.shared_memory)
            if blocks > most:
                raise RangeError(
                    f"kernel {self._name!r}: a cooperative launch of {blocks} blocks, of which "
                    f"{most} fit the device at once"
                )

    # What the compiler made of it.

    @property
    def attributes(self) -> KernelAttributes:
        """Registers, memory and limits."""
        return self._module._module().attributes(self._get_handle())

    def occupancy(self, block: int, shared_memory: int = 0) -> Occupancy:
        """How blocks of so many threads and bytes of dynamic shared memory fill the device."""
        return self._device._driver.occupancy(self._get_handle(), block, shared_memory)

    def cooperative_blocks(self, block: int, shared_memory: int = 0) -> int:
        """The largest grid whose blocks all run at once, as a cooperative launch needs."""
        return self._device._driver.cooperative_blocks(self._get_handle(), block, shared_memory)
