"""Loaded PTX on the CPU: its variables, its kernels, and the code compiled for each block shape."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from anyarch.engine.cache import CodeCache, key_for
from anyarch.errors import CompileError
from anyarch.gpu.backend import KernelAttributes
from anyarch.gpu.cpu.compiler import compile_kernel, sources_key
from anyarch.gpu.cpu.kernel import Facts, compile_text, inspect
from anyarch.gpu.cpu.layout import ModuleLayout, lay_out_module
from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx import signature_of
from anyarch.gpu.ptx.parser import parse
from anyarch.gpu.ptx.tree import Function, Module
from anyarch.gpu.signature import Signature
from anyarch.host.code import load

__all__ = ["CpuKernel", "CpuProgram", "Variant"]

_HEAP_NBYTES: Final = 8 << 20  # of device malloc, as CUDA's default
_U64: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel compiled for a shape of block: native entry, and its facts."""

    entry: int
    facts: Facts


class CpuKernel:
    """One kernel; compiled for the shapes of block that it is launched with."""

    def __init__(self, program: CpuProgram, function: Function) -> None:
        self.program, self.function = program, function
        self.name = function.name
        self.signature = signature_of(function)
        self._variants: dict[tuple[int, int, int], Variant] = {}
        # What is wrong with the kernel is found before it is launched, without compiling it.
        self.facts = inspect(program.module, program.layout, function, _usual_block(function))

    def variant(self, block: tuple[int, int, int]) -> Variant:
        """Code for a block of x × y × z threads."""
        found = self._variants.get(block)
        if found is None:
            found = self._variants[block] = self._load(block)
        return found

    def _load(self, block: tuple[int, int, int]) -> Variant:
        cache = CodeCache()
        options = self.program.options_key
        key = key_for("ptx", self.program.text, self.name, str(block), options, sources_key())
        blob = cache.get(key)
        if blob is None:
            text = compile_text(
                self.program.module,
                self.program.layout,
                self.function,
                block,
                self.program.threads,
            )
            try:
                blob = compile_kernel(text, self.program.level)
            except CompileError as error:
                place = self.function.place
                raise PtxError(
                    f"kernel {self.name} could not be compiled: {error}", place.line, place.column
                ) from error
            cache.put(key, blob)
        code = load(blob)
        count = len(Facts.__dataclass_fields__)
        numbers = ctypes.string_at(code.address("facts"), 4 * count)
        return Variant(code.address("kernel"), Facts(*struct.unpack(f"<{count}i", numbers)))


class CpuProgram:
    """A loaded module (`BackendModule`)."""

    def __init__(self, text: str, options: Mapping[str, Any]) -> None:
        self.log = ""
        self.text = text
        self.module: Module = parse(text)
        self.layout: ModuleLayout = lay_out_module(self.module)
        functions = self.module.functions
        self.allocates = "malloc" in functions  # whether device code may call it
        self.prints = bool({"vprintf", "__assertfail", "__assert_fail"} & functions.keys())
        level = options.get("optimization_level")
        self.level = 3 if level is None or level >= 2 else 0
        self.threads = bool(options.get("threads"))
        self.options_key = f"{self.level} {self.threads}"
        self._memory: mmap.mmap | None = _map(len(self.layout.image))
        self.memory = _address_of(self._memory)
        self._fill()
        self._heap: mmap.mmap | None = None
        self.heap = 0
        self._kernels: dict[str, CpuKernel] = {}

    def _fill(self) -> None:
        image = self.layout.image
        for at, offset in self.layout.addresses:
            _U64.pack_into(image, at, self.memory + offset)
        assert self._memory is not None
        self._memory[: len(image)] = bytes(image)

    def heap_record(self) -> int:
        """Memory that device malloc takes from; mapped when a kernel first may need it."""
        if self._heap is None:
            self._heap = _map(_HEAP_NBYTES + 16)
            start = _address_of(self._heap)
            self._heap[:16] = struct.pack("<QQ", start + 16, start + 16 + _HEAP_NBYTES)
            self.heap = start
        return self.heap

    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels."""
        return tuple(self.module.kernels)

    def kernel(self, name: str) -> tuple[CpuKernel, Signature]:
        """A kernel; it is compiled when it is first launched with a size of block."""
        found = self._kernels.get(name)
        if found is None:
            function = self.module.kernels[name]
            found = self._kernels[name] = CpuKernel(self, function)
        return found, found.signature

    def variable(self, name: str) -> tuple[int, int]:
        """Pointer and size of a global or constant variable."""
        return self.memory + self.layout.offsets[name], self.module.variables[name].nbytes

    def attributes(self, kernel: CpuKernel) -> KernelAttributes:
        """What the compiler made of a kernel."""
        facts = kernel.facts
        version = self.module.version
        constant = sum(v.nbytes for v in self.module.variables.values() if v.space == "const")
        return KernelAttributes(
            registers=0,
            shared=facts.shared,
            local=facts.local,
            constant=constant,
            max_threads_per_block=max_threads(kernel.function),
            ptx_version=version[0] * 10 + version[1],
            binary_version=0,
        )

    def unload(self) -> None:
        """Forget the memory; views that Python holds keep it."""
        self._memory = self._heap = None


def max_threads(function: Function) -> int:
    """The largest block that a kernel's directives allow."""
    for directive in ("reqntid", "maxntid"):
        numbers = function.directives.get(directive)
        if numbers:
            product = 1
            for n in numbers:
                product *= n
            return product
    return 1024


def _usual_block(function: Function) -> tuple[int, int, int]:
    numbers = function.directives.get("reqntid")
    if numbers:
        x, y, z = (*numbers, 1, 1)[:3]
        return x, y, z
    return 256, 1, 1


def _map(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
