"""The guest architectures that the command line knows."""

from __future__ import annotations

from anyarch._native import PACKAGES, architecture
from anyarch.isa.architecture import Architecture

DEFAULT = "riscv64"


def architectures() -> dict[str, Architecture]:
    """All of them, by name."""
    return {name: architecture(name) for name in PACKAGES}


def by_name(name: str) -> Architecture:
    """The architecture that the user named; raises Error."""
    return architecture(name)


def by_elf_machine(machine: int) -> Architecture | None:
    """The architecture of an ELF file's ``e_machine``."""
    for found in architectures().values():
        if found.elf_machine == machine:
            return found
    return None
