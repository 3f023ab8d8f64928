"""From LLVM text to a blob: one flat, relocation-free image of code and constants.

LLVM emits an ELF object; its sections are laid out in one image and every relocation between them
is resolved here, once, so that loading is a mapping and nothing else. What would need an address
at load time (absolute relocations, undefined symbols, writable data) is an error.
System V ABI, AMD64 supplement 1.0, section 4.4 (relocation); llvmlite is imported on first use.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from anyarch.emit.blob import Blob
from anyarch.emit.objects import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHN_ABS,
    SHN_COMMON,
    SHN_UNDEF,
    SHT_NOBITS,
    STB_LOCAL,
    Object,
    Section,
    Symbol,
)
from anyarch.errors import CompileError

if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef, TargetMachine

    from anyarch.emit.variables import Ranges


class Module(NamedTuple):
    """Text to be compiled on its own; ``static`` as :func:`compile_object` says."""

    text: str
    static: bool = False


def compile_blob(llvm_text: str, *, opt: int = 2, places: Mapping[str, int] | None = None) -> Blob:
    """Compile LLVM assembly for this host; ``places`` are offsets of symbols outside the image.

    `opt` 0 runs no pass but the always-inliner, 1 and 2 a short list that suits code without loops,
    3 the first level of LLVM's own pipeline. Raises CompileError for text that LLVM rejects and for
    code that does not stand alone.
    """
    found = Object(compile_object(llvm_text, opt=opt))
    blob = _link([found], places or {})
    if "!DICompileUnit" in llvm_text:
        blob.lines = _read_lines(found)
        blob.variables = _read_variables(found)
    return blob


def compile_object(llvm_text: str, *, opt: int = 2, static: bool = False) -> bytes:
    """Compile LLVM assembly to a relocatable ELF object, see :func:`compile_blob`; ``static`` is
    for code that has values of symbols in its instructions."""
    from llvmlite import binding as llvm

    narrow = "override-stack-alignment" in llvm_text
    machine = _target_machine(opt, narrow=narrow, static=static)
    try:
        module = llvm.parse_assembly(llvm_text)
    except RuntimeError as error:
        raise CompileError(_parse_message(llvm_text, str(error))) from None
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    try:
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM's verifier rejects the module: {error}") from None
    _hide(module)
    if narrow:
        module.data_layout = str(machine.target_data).replace(_NATIVE, _PREFERRED)
    _optimise(module, machine, opt, counts=narrow)
    module.data_layout = str(machine.target_data)
    elf: bytes = machine.emit_object(module)
    return elf


def compile_objects(
    modules: Sequence[Module], jobs: int = 1, done: Callable[[int], None] = lambda count: None
) -> list[bytes]:
    """Objects of several modules, see :func:`compile_object`, made by as many processes as ``jobs``
    says; ``done`` is told how many are ready."""
    if jobs < 2 or len(modules) < 2:
        found = []
        for module in modules:
            found.append(_compile_module(module))
            done(len(found))
        return found
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(jobs, len(modules)), get_context("spawn")) as executor:
        # The largest first: none of them is then waited for at the end.
        order = sorted(modules, key=lambda module: -len(module.text))
        futures = {id(module): executor.submit(_compile_module, module) for module in order}
        try:
            for count, future in enumerate(as_completed(futures.values()), 1):
                future.result()
                done(count)
        except BrokenProcessPool:
            raise CompileError("a compiler process died, of lack of memory perhaps") from None
        return [futures[id(module)].result() for module in modules]


def _compile_module(module: Module) -> bytes:
    return compile_object(module.text, static=module.static)


def skip_scheduling() -> None:
    """From here on, in this process, leave the order of machine instructions to the processor.

    LLVM takes a fifth less time to make a region's machine code, which gets no larger.
    """
    from llvmlite import binding as llvm

    llvm.set_option("", "--enable-misched=false")
    llvm.set_option("", "--post-RA-scheduler=false")


# Sizes of integers in LLVM's description of the host. Where 64 bits are among them, it makes a sum
# of 32 bits that is extended one of 64 that is shifted up and down.
_NATIVE: Final = "-n8:16:32:64"
_PREFERRED: Final = "-n8:16:32"

_machines: Final[dict[tuple[int, bool, bool], TargetMachine]] = {}


def _target_machine(opt: int, *, narrow: bool, static: bool) -> TargetMachine:
    """``narrow`` is for modules with a stack alignment of their own: a machine keeps the first that
    it sees, for all modules after it."""
    from llvmlite import binding as llvm

    if (opt, narrow, static) not in _machines:
        # Merging equal ends of blocks would lose which guest instruction one of them belongs to.
        llvm.set_option("", "--enable-tail-merge=false")
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
        _machines[opt, narrow, static] = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(),
            features=llvm.get_host_cpu_features().flatten(),
            opt=opt,
            reloc="static" if static else "pic",
            codemodel="small",
        )
    return _machines[opt, narrow, static]


def _hide(module: ModuleRef) -> None:
    """Make every global hidden: no access then goes through an offset table."""
    from llvmlite.binding import Linkage

    local = (Linkage.internal, Linkage.private)
    for values in (module.functions, module.global_variables):
        for value in values:
            if value.linkage not in local and not value.name.startswith("llvm."):
                value.visibility = "hidden"


def _optimise(module: ModuleRef, machine: TargetMachine, opt: int, *, counts: bool) -> None:
    """``counts``: look for what counts bits by shifts and masks. A handler has no such thing."""
    from llvmlite import binding as llvm

    # The pipeline's higher levels take a third longer; kernels are vector code already.
    options = llvm.create_pipeline_tuning_options(speed_level=opt if opt < 3 else 1)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    if opt >= 3:
        passes = builder.getModulePassManager()
    else:
        # LLVM's pipeline takes four to six times as long for the thousand functions of an
        # interpreter. Not NewGVN: LLVM 22's is wrong, see docs/performance.md.
        passes = llvm.create_new_module_pass_manager()
        passes.add_always_inliner_pass()
        if opt:
            passes.add_sroa_pass()
            passes.add_simplify_cfg_pass()
            passes.add_instruction_combine_pass()
            if counts:
                passes.add_aggressive_instcombine_pass()
            passes.add_simplify_cfg_pass()
            passes.add_dead_code_elimination_pass()
        passes.add_global_dead_code_eliminate_pass()
    passes.run(module, builder)


def _parse_message(text: str, message: str) -> str:
    """LLVM's parse error with the offending line and its number."""
    found = re.search(r"<string>:(\d+):(\d+): error: (.*)", message)
    if not found:
        return f"LLVM cannot parse the module: {message}"
    number = int(found[1])
    lines = text.splitlines()
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    return f"LLVM text, line {number}, column {found[2]}: {found[3]}: {line!r}"


# Relocation types, System V ABI, AMD64 supplement.
_PC32 = frozenset({2, 4})  # R_X86_64_PC32, R_X86_64_PLT32
_PC64 = 24  # R_X86_64_PC64
_GOT = frozenset({9, 41, 42})  # R_X86_64_GOTPCREL, GOTPCRELX, REX_GOTPCRELX
_ABSOLUTE_64 = 1  # R_X86_64_64
_ABSOLUTE = {_ABSOLUTE_64: "R_X86_64_64", 10: "R_X86_64_32", 11: "R_X86_64_32S"}


def link(elfs: Sequence[bytes], places: Mapping[str, int] | None = None) -> Blob:
    """Lay out relocatable x86-64 ELF objects, which may refer to each other, as one blob.

    Raises CompileError, naming the symbol, for whatever could not be resolved without knowing
    where the image will be mapped.
    """
    return _link([Object(elf) for elf in elfs], places or {})


def _link(objects: Sequence[Object], places: Mapping[str, int]) -> Blob:
    image = _lay_out([section for found in objects for section in found.sections])
    exported: dict[str, int] = {}
    for found in objects:
        for name, place in _exported(found):
            if name in exported:
                raise CompileError(f"{name} is defined twice")
            exported[name] = place
    known = {**places, **exported}
    undefined: set[str] = set()
    for found in objects:
        for target in found.sections:
            if target.place < 0:
                continue
            for offset, kind, index, addend in found.relocations(target):
                symbol = found.symbols[index]
                where = f"{target.name}+{offset:#x}"
                if symbol.section != SHN_UNDEF:
                    value = _resolve(symbol, found.sections, where)
                elif symbol.name in known:
                    value = known[symbol.name]
                else:
                    undefined.add(symbol.name)
                    continue
                _relocate(image, target.place + offset, kind, value, addend, symbol.name, where)
    if undefined:
        raise CompileError(
            f"undefined symbol {', '.join(sorted(undefined))}: native code cannot call the C "
            "library; define the function in the module or reach it through the context"
        )
    return Blob(bytes(image), exported)


def _exported(found: Object) -> Iterator[tuple[str, int]]:
    """Global symbols that an object defines, and their places."""
    for symbol in found.symbols:
        if symbol.binding != STB_LOCAL and symbol.section not in (SHN_UNDEF, SHN_ABS, SHN_COMMON):
            section = found.sections[symbol.section]
            if section.place >= 0:
                yield symbol.name, section.place + symbol.value


def _lay_out(sections: Sequence[Section]) -> bytearray:
    """Give each loaded section its place: code first, constants after it."""
    image = bytearray()
    loaded = [s for s in sections if s.flags & SHF_ALLOC and s.nbytes and s.name != ".eh_frame"]
    for section in sorted(loaded, key=lambda s: not s.flags & SHF_EXECINSTR):
        constant = section.name.startswith(".data.rel.ro")
        if (section.flags & SHF_WRITE and not constant) or section.kind == SHT_NOBITS:
            raise CompileError(
                f"section {section.name} holds {section.nbytes} bytes of writable data: make the "
                "global `constant`, or keep the state in the context"
            )
        image.extend(b"\0" * (-len(image) % max(section.align, 1)))
        section.place = len(image)
        image += section.content
    return image


def _read_lines(found: Object) -> list[tuple[int, int]]:
    """Rows of the line table: offset in the code section, which the image begins with, and line."""
    from anyarch.emit.lines import read_lines

    for section in found.sections:
        if section.name == ".debug_line":
            addresses = {
                offset: found.symbols[index].value + addend
                for offset, kind, index, addend in found.relocations(section)
                if kind == _ABSOLUTE_64
            }
            return read_lines(section.content, addresses)
    return []


def _read_variables(found: Object) -> dict[int, Ranges]:
    from anyarch.emit.variables import read_variables

    sections = {section.name: section for section in found.sections}
    info = sections.get(".debug_info")
    if info is None:
        return {}
    abbreviations, lists = (
        sections[name].content if name in sections else b""
        for name in (".debug_abbrev", ".debug_loc")
    )
    addresses = {
        offset: found.symbols[index].value + addend
        for offset, _, index, addend in found.relocations(info)
    }
    return read_variables(info.content, abbreviations, lists, addresses)


def _resolve(symbol: Symbol, sections: list[Section], where: str) -> int:
    place = -1 if symbol.section >= len(sections) else sections[symbol.section].place
    if place < 0:
        raise CompileError(
            f"{where} refers to {symbol.name or 'a symbol'} outside the image (common, absolute "
            "or in a section that is not loaded)"
        )
    return place + symbol.value


def _relocate(
    image: bytearray, place: int, kind: int, value: int, addend: int, name: str, where: str
) -> None:
    if kind in _GOT:
        _relax(image, place, name, where)
        kind = 2
    if kind in _PC32:
        struct.pack_into("<i", image, place, value + addend - place)
    elif kind == _PC64:
        struct.pack_into("<q", image, place, value + addend - place)
    elif kind in _ABSOLUTE:
        raise CompileError(
            f"{where} needs the absolute address of {name or 'a section'} ({_ABSOLUTE[kind]}): "
            "blobs are position-independent; store a difference of two addresses instead"
        )
    else:
        raise CompileError(f"{where}: relocation type {kind} against {name} is not supported")


def _relax(image: bytearray, place: int, name: str, where: str) -> None:
    """Turn a load from the global offset table into the address itself."""
    before = bytes(image[place - 2 : place])
    if before[0] == 0x8B and before[1] & 0xC7 == 0x05:  # mov name@GOTPCREL(%rip), %reg
        image[place - 2] = 0x8D  # lea name(%rip), %reg
    elif before == b"\xff\x15":  # call *name@GOTPCREL(%rip)
        image[place - 2 : place] = b"\x67\xe8"  # addr32 call name
    elif before == b"\xff\x25":  # jmp *name@GOTPCREL(%rip), one byte longer than the direct form
        image[place - 2 : place] = b"\x2e\xe9"  # cs jmp name
    else:
        raise CompileError(
            f"{where} reads the address of {name} from a global offset table: declare it hidden"
        )
