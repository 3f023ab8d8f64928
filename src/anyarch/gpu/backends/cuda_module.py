"""Code loaded on an NVIDIA GPU, and its kernels."""

from __future__ import annotations

import ctypes
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from anyarch.gpu.backend import Handle, Image, KernelAttributes, LaunchConfig, Needs
from anyarch.gpu.backends.launcher import find_launcher
from anyarch.gpu.errors import ClosedError, DriverError, ImageError, PtxError
from anyarch.gpu.signature import Parameter, Signature

if TYPE_CHECKING:
    from anyarch.gpu.backends.cuda_device import CudaDevice

__all__ = ["CudaKernel", "CudaModule"]

_LOG_NBYTES: Final = 16384
_NOT_FOUND: Final = 500
_BAD_IMAGE: Final = frozenset({200, 209, 218, 220, 221, 222, 223, 301})
_PTXAS: Final = re.compile(r"line (\d+)[;:]?\s*(?:fatal|error)\s*:\s*(.*)")
_OPTIONS: Final = {
    "max_registers": "MAX_REGISTERS",
    "optimization_level": "OPTIMIZATION_LEVEL",
    "line_info": "GENERATE_LINE_INFO",
    "debug": "GENERATE_DEBUG_INFO",
    "verbose": "LOG_VERBOSE",
}


class CudaModule:
    """A module of the driver."""

    def __init__(
        self, device: CudaDevice, images: Sequence[Image], options: Mapping[str, Any]
    ) -> None:
        self._device = device
        self._signatures = {n: s for image in images for n, s in image.signatures.items()}
        self._has_text = all(image.ptx is not None for image in images)
        self._module: Any = None
        self._kernels: weakref.WeakSet[CudaKernel] = weakref.WeakSet()
        information, errors = bytearray(_LOG_NBYTES), bytearray(_LOG_NBYTES)
        names, values = self._options(options, information, errors)
        image = images[0]
        try:
            if len(images) == 1:
                arguments = _data(image), len(names), names, values
                self._module = device.call("cuModuleLoadDataEx", *arguments)
            else:
                state = device.call("cuLinkCreate", len(names), names, values)
                try:
                    for image in images:
                        self._add(state, image)
                    code, _ = device.call("cuLinkComplete", state)
                    self._module = device.call("cuModuleLoadData", code)
                finally:
                    device.call("cuLinkDestroy", state)
        except DriverError as error:
            raise _load_error(error, image, _log(errors), len(images) > 1) from None
        self.log = "\n".join(filter(None, (_log(information), _log(errors))))

    def _add(self, state: Any, image: Image) -> None:
        kinds = self._device.driver.api.CUjitInputType
        kind = kinds.CU_JIT_INPUT_CUBIN if image.ptx is None else kinds.CU_JIT_INPUT_PTX
        data, name = _data(image), image.origin.encode() + b"\0"
        self._device.call("cuLinkAddData", state, kind, data, len(data), name, 0, [], [])

    def _options(
        self, options: Mapping[str, Any], information: bytearray, errors: bytearray
    ) -> tuple[list[Any], list[Any]]:
        known = self._device.driver.api.CUjit_option
        given: dict[str, Any] = {
            "INFO_LOG_BUFFER": information,
            "INFO_LOG_BUFFER_SIZE_BYTES": len(information),
            "ERROR_LOG_BUFFER": errors,
            "ERROR_LOG_BUFFER_SIZE_BYTES": len(errors),
        }
        for name, value in options.items():
            if value is not None and value is not False:
                given[_OPTIONS[name]] = int(value)
        return [getattr(known, f"CU_JIT_{name}") for name in given], list(given.values())

    def kernels(self) -> tuple[str, ...]:
        """As the PTX says; of a cubin as the driver says."""
        if self._has_text:
            return tuple(self._signatures)
        device = self._device
        count = device.call("cuModuleGetFunctionCount", self._module)
        if not count:
            return ()
        functions = device.call("cuModuleEnumerateFunctions", count, self._module)
        return tuple(device.call("cuFuncGetName", function).decode() for function in functions)

    def kernel(self, name: str) -> tuple[Handle, Signature]:
        """A kernel; of a cubin the driver knows only the sizes of its parameters."""
        try:
            function = self._device.call("cuModuleGetFunction", self._module, name.encode())
        except DriverError as error:
            if error.code == _NOT_FOUND:
                raise KeyError(name) from None
            raise
        signature = self._signatures.get(name) or self._ask_signature(function)
        kernel = CudaKernel(self._device, self, name, int(function), signature)
        self._kernels.add(kernel)
        return kernel, signature

    def _ask_signature(self, function: Any) -> Signature:
        parameters: list[Parameter] = []
        while True:
            try:
                offset, nbytes = self._device.call("cuFuncGetParamInfo", function, len(parameters))
            except DriverError:  # it has no more
                break
            parameters.append(Parameter("", "", offset, nbytes))
        end = parameters[-1].offset + parameters[-1].nbytes if parameters else 0
        return Signature(tuple(parameters), end)

    def variable(self, name: str) -> tuple[int, int]:
        """Pointer and size."""
        try:
            pointer, nbytes = self._device.call("cuModuleGetGlobal", self._module, name.encode())
        except DriverError as error:
            if error.code == _NOT_FOUND:
                raise KeyError(name) from None
            raise
        return int(pointer), nbytes

    def attributes(self, kernel: Handle) -> KernelAttributes:
        """Ask the driver."""
        assert isinstance(kernel, CudaKernel)
        return KernelAttributes(
            registers=kernel.attribute("NUM_REGS"),
            shared=kernel.attribute("SHARED_SIZE_BYTES"),
            local=kernel.attribute("LOCAL_SIZE_BYTES"),
            constant=kernel.attribute("CONST_SIZE_BYTES"),
            max_threads_per_block=kernel.attribute("MAX_THREADS_PER_BLOCK"),
            ptx_version=kernel.attribute("PTX_VERSION"),
            binary_version=kernel.attribute("BINARY_VERSION"),
        )

    def unload(self) -> None:
        """Once the device is idle: the driver does not wait for launches of the module."""
        for kernel in self._kernels:
            kernel.retire()
        module, self._module = self._module, None
        self._device.retire(module)
        self._device.synchronize()

    def __del__(self) -> None:
        if self._module is not None:
            self._device.retire(self._module)


class CudaKernel:
    """A function of the driver; it keeps its module loaded."""

    __slots__ = (
        "__weakref__",
        "_cell",
        "_device",
        "_module",
        "_number",
        "_shared_limit",
        "name",
        "signature",
    )

    def __init__(
        self,
        device: CudaDevice,
        module: CudaModule,
        name: str,
        function: int,
        signature: Signature,
    ) -> None:
        self._device = device
        self._module = module
        # Native code reads the function from here at each launch; 0 once the module is unloaded.
        self._cell = ctypes.c_uint64(function)
        self.name = name
        self.signature = signature
        self._number = device.recent.register(name)
        self._shared_limit = self.attribute("MAX_DYNAMIC_SHARED_SIZE_BYTES")

    @property
    def function(self) -> int:
        """The driver's handle."""
        if not self._cell.value:
            raise ClosedError(f"kernel {self.name!r} was used after its module was unloaded")
        return self._cell.value

    def retire(self) -> None:
        """The function is no more."""
        self._cell.value = 0

    def attribute(self, name: str) -> int:
        """An attribute of the function."""
        attribute = getattr(
            self._device.driver.api.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{name}"
        )
        value: int = self._device.call("cuFuncGetAttribute", attribute, self.function)
        return value

    def allow_shared_memory(self, nbytes: int) -> None:
        """Raise the limit on dynamic shared memory where that is needed."""
        if nbytes > self._shared_limit:
            known = self._device.driver.api.CUfunction_attribute
            attribute = known.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._device.call("cuFuncSetAttribute", self.function, attribute, nbytes)
            self._shared_limit = nbytes

    def launch(self, config: LaunchConfig, parameters: bytes, stream: Handle) -> None:
        """Start it."""
        launcher = find_launcher()
        if launcher is not None:
            launcher.learn_scalars()  # the native launcher may have come here for want of them
        self._start(config, ParameterBlock(self.signature, parameters), stream)

    def _start(self, config: LaunchConfig, block: ParameterBlock, stream: Handle) -> None:
        self.allow_shared_memory(config.shared_memory)
        self._device.recent.note(self._number, stream)
        arguments = (
            self.function,
            *config.grid,
            *config.block,
            config.shared_memory,
            stream,
            block.pointer,
        )
        if config.cooperative:
            self._device.call("cuLaunchCooperativeKernel", *arguments)
        else:
            self._device.call("cuLaunchKernel", *arguments, 0)

    def prepare(
        self, config: LaunchConfig, parameters: bytes, stream: Handle, needs: Needs
    ) -> Callable[[], None]:
        """What starts it."""
        self.allow_shared_memory(config.shared_memory)
        block = ParameterBlock(self.signature, parameters)

        def start() -> None:
            needs.check()
            self._start(config, block, stream)

        launcher = find_launcher()
        if launcher is None:
            return start
        cell = ctypes.c_uint64(self.function)

        def stop() -> None:
            cell.value = 0

        needs.on_end = stop
        return launcher.prepare(
            self._device.table, cell, self._number, config, block.pointer, stream, start
        )

    def bind(self, slow: Callable[..., None]) -> Callable[..., None]:
        """A native launcher for its parameters, else `slow`."""
        launcher = find_launcher()
        made = None
        if launcher is not None:
            made = launcher.launcher(
                self._device.table, self._cell, self._number, self.signature, slow
            )
        return slow if made is None else made


class ParameterBlock:
    """Parameters as the driver takes them: a pointer to each."""

    __slots__ = ("_data", "_pointers", "pointer")

    def __init__(self, signature: Signature, parameters: bytes) -> None:
        self._data = ctypes.create_string_buffer(parameters, max(len(parameters), 1))
        base = ctypes.addressof(self._data)
        offsets = [base + parameter.offset for parameter in signature.parameters]
        self._pointers = (ctypes.c_uint64 * max(len(offsets), 1))(*offsets)
        self.pointer = ctypes.addressof(self._pointers) if offsets else 0


def _log(data: bytearray) -> str:
    return bytes(data).split(b"\0")[0].decode(errors="replace").strip()


def _data(image: Image) -> bytes:
    """As the driver takes it."""
    return image.cubin or b"" if image.ptx is None else image.ptx.encode() + b"\0"


def _load_error(error: DriverError, image: Image, log: str, linked: bool) -> Exception:
    """The error for an image, where several are linked the one that was added last."""
    found = _PTXAS.search(log)
    if image.ptx is not None and found:
        line = int(found[1])
        lines = image.ptx.splitlines()
        text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
        if linked:
            return PtxError(found[2], line, 0, text, image.origin)
        return PtxError(f"{found[2]} ({image.origin})", line, 0, text)
    if linked and log:
        return ImageError(f"linking failed: {log}")
    if error.code in _BAD_IMAGE:
        detail = f": {log}" if log else ""
        if image.ptx is not None:
            return PtxError(f"{image.origin}: {error}{detail}")
        return ImageError(f"{image.origin}: {error}{detail}")
    return error
