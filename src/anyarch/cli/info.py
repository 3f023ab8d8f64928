"""``anyarch info``: what a file is, and whether it can be run here."""

from __future__ import annotations

import os
import re
from typing import Any, Final

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import RISCVAttributesSection
from elftools.elf.segments import InterpSegment

from anyarch.cli.architectures import architectures, by_elf_machine
from anyarch.cli.code import DAMAGED
from anyarch.errors import Error, LoadError
from anyarch.isa.architecture import Architecture
from anyarch.linux.elf import MACHINES, read_elf

_TYPES: Final = {"ET_EXEC": "executable", "ET_DYN": "shared object or position-independent"}
# RISC-V names of extensions whose definitions live in a module of another name.
_PARTS: Final = {
    **dict.fromkeys(("i", "e"), "rv64i"),
    **dict.fromkeys(("m", "zmmul"), "rv64m"),
    **dict.fromkeys(("a", "zaamo", "zalrsc"), "rv64a"),
    **dict.fromkeys(("c", "zca", "zcb", "zcd"), "rv64c"),
    "f": "rv64f",
    "d": "rv64d",
    "zfhmin": "zfh",
    "zicntr": "zicsr",
    "b": "zbb",
    **dict.fromkeys(("zicbom", "zicbop", "zicboz"), "zicbo"),
}


def describe(path: str, root: str | None) -> dict[str, Any]:
    """Facts about a file; ``runs`` says whether anyarch can run it and ``why not``."""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError as error:
        raise Error(f"{path}: {error.strerror}; expected a readable file") from None
    if head.startswith(b"#!"):
        interpreter = head[2:].split(b"\n", 1)[0].strip().decode("utf-8", "replace")
        return {
            "file": path,
            "kind": "script",
            "interpreter": interpreter,
            "runs": "if its interpreter does",
        }
    if not head.startswith(b"\x7fELF"):
        return {
            "file": path,
            "kind": "unknown",
            "runs": "no",
            "why not": "it is neither an ELF file nor a script",
        }
    try:
        facts, number = _describe_elf(path)
    except DAMAGED as error:
        raise LoadError(f"{path}: damaged ELF file: {error}") from None
    problems = _problems(path, root, facts, by_elf_machine(number), number)
    facts["runs"] = "no" if problems else "yes"
    if problems:
        facts["why not"] = "; ".join(problems)
    return facts


def _describe_elf(path: str) -> tuple[dict[str, Any], int]:
    """What the file says, and the number of its machine."""
    facts: dict[str, Any] = {"file": path}
    with open(path, "rb") as file:
        number = int.from_bytes(file.read(20)[18:20], "little")
        elf = ELFFile(file)
        order = "little" if elf.little_endian else "big"
        facts["kind"] = f"ELF{elf.elfclass}, {order}-endian"
        facts["machine"] = MACHINES.get(number, str(elf["e_machine"]))
        facts["type"] = _TYPES.get(elf["e_type"], str(elf["e_type"]))
        facts["entry"] = f"{elf['e_entry']:#x}"
        needed: list[str] = []
        for segment in elf.iter_segments():
            if isinstance(segment, InterpSegment):
                facts["interpreter"] = segment.get_interp_name()
            elif isinstance(segment, DynamicSegment):
                needed += [
                    str(tag.needed)  # type: ignore[attr-defined]  # set for tags of this kind
                    for tag in segment.iter_tags("DT_NEEDED")
                ]
        if needed:
            facts["libraries"] = needed
        extensions = riscv_extensions(_riscv_attribute(elf))
        if extensions:
            facts["extensions"] = extensions
    return facts, number


def _problems(
    path: str,
    root: str | None,
    facts: dict[str, Any],
    architecture: Architecture | None,
    number: int,
) -> list[str]:
    if architecture is None:
        return [
            f"no definitions for {facts['machine']} (e_machine {number}); "
            f"anyarch has {', '.join(architectures())}"
        ]
    problems = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        read_elf(fd, path)
    except LoadError as error:
        problems.append(str(error).removeprefix(f"{path}: "))
    finally:
        os.close(fd)
    if not os.access(path, os.X_OK):
        problems.append("it is not marked executable (chmod +x)")
    interpreter = facts.get("interpreter")
    if interpreter is not None:
        inside = os.path.join(root, interpreter.lstrip("/")) if root else interpreter
        if not os.path.exists(inside) and not os.path.exists(interpreter):
            problems.append(
                f"its interpreter {interpreter} is not installed; name the directory of a "
                f"{architecture.name} system with -L"
            )
    known = {instruction.extension for instruction in architecture.isa.instructions}
    unknown = [name for name in facts.get("extensions", ()) if _PARTS.get(name, name) not in known]
    if unknown:
        problems.append(f"it may use instructions that are not defined: {', '.join(unknown)}")
    return problems


def _riscv_attribute(elf: ELFFile) -> str:
    """The architecture string that a RISC-V compiler left, such as ``rv64i2p1_m2p0``."""
    for section in elf.iter_sections():
        if isinstance(section, RISCVAttributesSection):
            for vendor in section.iter_subsections():
                for scope in vendor.iter_subsubsections():
                    for attribute in scope.iter_attributes("TAG_ARCH"):
                        return str(attribute.value)
    return ""


def riscv_extensions(text: str) -> list[str]:
    """The extensions of an architecture string, without their versions.

    >>> riscv_extensions("rv64i2p1_m2p0_zicsr2p0_zmmul1p0")
    ['i', 'm', 'zicsr', 'zmmul']
    """
    names = []
    for part in text.removeprefix("rv64").split("_") if text.startswith("rv64") else ():
        names.append(re.sub(r"\d+p\d+$", "", part))
    return names
