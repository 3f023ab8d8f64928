"""The guest architectures there are: one package each under ``anyarch.guests``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from anyarch import guests
from anyarch.errors import Error
from anyarch.isa.architecture import Architecture

DEFAULT = "riscv64"


@cache
def architectures() -> dict[str, Architecture]:
    """All of them, by name."""
    found = {}
    for module in pkgutil.iter_modules(guests.__path__):
        architecture = importlib.import_module(f"{guests.__name__}.{module.name}").ARCHITECTURE
        found[architecture.name] = architecture
    return found


def by_name(name: str) -> Architecture:
    """The architecture that the user named; raises Error."""
    found = architectures().get(name)
    if found is None:
        raise Error(f"no architecture {name!r}; expected one of {', '.join(architectures())}")
    return found


def by_elf_machine(machine: int) -> Architecture | None:
    """The architecture of an ELF file's ``e_machine``."""
    for architecture in architectures().values():
        if architecture.elf_machine == machine:
            return architecture
    return None
