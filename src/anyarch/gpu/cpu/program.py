"""Loaded PTX on the CPU: its variables, its kernels, and the code compiled for each block shape."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from anyarch.engine.cache import CodeCache, key_for
from anyarch.errors import CompileError
from anyarch.gpu.backend import KernelAttributes
from anyarch.gpu.cpu.compiler import (
    code_digest,
    compile_kernel,
    compile_lines,
    sources_key,
    start_compiler,
)
from anyarch.gpu.cpu.outline import (
    FACTS,
    Facts,
    Outline,
    outline_of,
    pack_facts,
    pack_outline,
    unpack_facts,
    unpack_outline,
)
from anyarch.gpu.errors import PtxError
from anyarch.gpu.signature import Signature
from anyarch.host.code import NativeCode, load

if TYPE_CHECKING:
    # What reads PTX is slow to import, and not needed for what is in the cache.
    from anyarch.gpu.cpu.layout import ModuleLayout
    from anyarch.gpu.cpu.lines import Lines
    from anyarch.gpu.ptx.tree import Function, Instruction, Module

__all__ = ["CpuKernel", "CpuProgram", "Text", "Variant"]

_HEAP_NBYTES: Final = 8 << 20  # of device malloc, as CUDA's default
_U64: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Text:
    """PTX, and where it comes from."""

    ptx: str
    origin: str

    @property
    def lines(self) -> int:
        """How many it has."""
        return self.ptx.count("\n") + 1


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel compiled for a shape of block: its code, the entry in it, and its facts."""

    code: NativeCode
    entry: int
    facts: Facts


# Code stays mapped: a program that is loaded again and again finds it here.
_mapped: Final[dict[str, Variant]] = {}


class CpuKernel:
    """One kernel; compiled for the shapes of block that it is launched with."""

    def __init__(self, program: CpuProgram, name: str) -> None:
        self.program, self.name = program, name
        self.outline = program.outline.kernels[name]
        self.signature = self.outline.signature
        self._variants: dict[tuple[int, int, int], Variant] = {}
        self._texts: dict[tuple[int, int, int], str] = {}  # what looking at it has made
        with program.own_lines():
            self.facts = self._look()

    @property
    def function(self) -> Function:
        """The kernel's text."""
        return self.program.module.kernels[self.name]

    def _look(self) -> Facts:
        """What is wrong with the kernel is found before it is launched, without compiling it."""
        cache = CodeCache()
        key = key_for("ptx facts", self.program.key, self.name)
        known = cache.get(key)
        if known is not None:
            return unpack_facts(known.code)
        start_compiler()  # it gets ready meanwhile
        from anyarch.gpu.cpu.kernel import inspect

        block = self.outline.required_block or (256, 1, 1)
        facts, text = inspect(self.program.module, self.program.layout, self.function, block)
        if not self.program.threads and not self.program.check:
            self._texts[block] = text
        cache.put(key, pack_facts(facts))
        return facts

    def variant(self, block: tuple[int, int, int]) -> Variant:
        """Code for a block of x × y × z threads."""
        found = self._variants.get(block)
        if found is None:
            with self.program.own_lines():
                found = self._variants[block] = self._load(block)
        return found

    def _load(self, block: tuple[int, int, int]) -> Variant:
        cache = CodeCache()
        key = key_for("ptx", self.program.key, self.name, str(block), self.program.options_key)
        if key in _mapped:
            return _mapped[key]
        blob = cache.get(key)
        if blob is None:
            try:
                blob = compile_kernel(self._text(block), self.program.level)
            except CompileError as error:
                place = self.function.place
                raise PtxError(
                    f"kernel {self.name} could not be compiled: {error}", place.line, place.column
                ) from error
            cache.put(key, blob)
        code = load(blob)
        facts = unpack_facts(ctypes.string_at(code.address("facts"), FACTS.size))
        return _mapped.setdefault(key, Variant(code, code.address("kernel"), facts))

    def _text(self, block: tuple[int, int, int], lines: Lines | None = None) -> str:
        known = self._texts.pop(block, None)
        if known is not None and lines is None:
            return known
        from anyarch.gpu.cpu.kernel import compile_text

        program = self.program
        return compile_text(
            program.module,
            program.layout,
            self.function,
            block,
            program.threads,
            lines,
            program.check,
        )

    def instruction_of(self, line: int, column: int) -> Instruction | None:
        """The instruction at a place in the PTX."""
        from anyarch.gpu.ptx.tree import Instruction

        for function in self.program.module.functions.values():
            for statement in function.statements or ():
                place = statement.place
                here = (place.line, place.column) == (line, column)
                if here and isinstance(statement, Instruction):
                    return statement
        return None

    def instruction_at(self, block: tuple[int, int, int], pointer: int) -> Instruction | None:
        """The instruction whose code, for that shape of block, lies at a host address."""
        from anyarch.gpu.cpu.lines import Lines, instruction_at

        code = self.variant(block).code
        if not code.start <= pointer < code.end:
            return None
        lines = Lines()
        try:
            digest, rows = compile_lines(self._text(block, lines), self.program.level)
        except CompileError:  # what went wrong with the kernel matters more than where
            return None
        if digest != code_digest(ctypes.string_at(code.start, code.end - code.start)):
            return None
        return instruction_at(lines, rows, pointer - code.start)


class CpuProgram:
    """A loaded module (`BackendModule`)."""

    def __init__(self, texts: Sequence[Text], options: Mapping[str, Any]) -> None:
        self.log = ""
        self._texts = texts
        self.key = key_for("ptx text", *(text.ptx for text in texts), sources_key())
        with self.own_lines():
            self.outline = self._load_outline()
        self.allocates, self.prints = self.outline.allocates, self.outline.prints
        level = options.get("optimization_level")
        self.level = 3 if level is None or level >= 2 else 0
        self.threads = bool(options.get("threads"))
        self.check = bool(options.get("check"))
        self.options_key = f"{self.level} {self.threads} {self.check}"
        self._memory: mmap.mmap | None = _map(len(self.outline.image))
        self.memory = _address_of(self._memory)
        self._fill()
        self._heap: mmap.mmap | None = None
        self.heap = 0
        self._kernels: dict[str, CpuKernel] = {}

    @cached_property
    def module(self) -> Module:
        """The texts, parsed when they are first needed. Their lines are counted as of one text."""
        from anyarch.gpu.cpu.stack import lower_stacks
        from anyarch.gpu.ptx import link, parse

        modules, line = [], 1
        for text in self._texts:
            modules.append(parse(text.ptx, line))
            line += text.lines
        module = link(modules)
        lower_stacks(module)
        return module

    def place_of(self, line: int) -> tuple[str, int]:
        """Where several texts are linked the origin of one and a line in it, else "" and `line`."""
        if len(self._texts) == 1:
            return "", line
        for text in self._texts:
            if line <= text.lines:
                break
            line -= text.lines
        return text.origin, line

    @contextmanager
    def own_lines(self) -> Iterator[None]:
        """Errors of PTX name the text, and a line of it."""
        try:
            yield
        except PtxError as error:
            if not error.line or error.origin or len(self._texts) == 1:
                raise
            origin, line = self.place_of(error.line)
            raise PtxError(
                error.message, line, error.column, error.instruction, origin
            ) from error.__cause__

    @cached_property
    def layout(self) -> ModuleLayout:
        """Where its variables lie."""
        from anyarch.gpu.cpu.layout import lay_out_module

        return lay_out_module(self.module)

    def _load_outline(self) -> Outline:
        cache = CodeCache()
        known = cache.get(self.key)
        if known is not None:
            return unpack_outline(known)
        outline = outline_of(self.module, self.layout)
        cache.put(self.key, pack_outline(outline))
        return outline

    def _fill(self) -> None:
        image = bytearray(self.outline.image)
        for at, offset in self.outline.addresses:
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
        return tuple(self.outline.kernels)

    def kernel(self, name: str) -> tuple[CpuKernel, Signature]:
        """A kernel; it is compiled when it is first launched with a size of block."""
        found = self._kernels.get(name)
        if found is None:
            found = self._kernels[name] = CpuKernel(self, name)
        return found, found.signature

    def ranges(self) -> list[tuple[int, int]]:
        """Where its variables lie, and the heap: start and end."""
        found = [(self.memory + at, nbytes) for at, nbytes in self.outline.variables.values()]
        if self._heap is not None:
            found.append((self.heap, _HEAP_NBYTES + 16))
        return [(start, start + nbytes) for start, nbytes in found]

    def variable(self, name: str) -> tuple[int, int]:
        """Pointer and size of a global or constant variable."""
        offset, nbytes = self.outline.variables[name]
        return self.memory + offset, nbytes

    def attributes(self, kernel: CpuKernel) -> KernelAttributes:
        """What the compiler made of a kernel."""
        facts = kernel.facts
        version = self.outline.version
        return KernelAttributes(
            registers=0,
            shared=facts.shared,
            local=facts.local,
            constant=self.outline.constant_nbytes,
            max_threads_per_block=kernel.outline.max_threads,
            ptx_version=version[0] * 10 + version[1],
            binary_version=0,
        )

    def unload(self) -> None:
        """Forget the memory; views that Python holds keep it."""
        self._memory = self._heap = None


def _map(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
