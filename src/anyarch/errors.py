"""Every error that anyarch raises on purpose.

Error
├── DefinitionError   an instruction definition or encoding row is wrong
├── AssemblyError     assembly text that no instruction accepts
├── LoadError         a file that cannot be run: not ELF, wrong machine, damaged
├── MemoryFault       an access to guest memory that is not mapped or not permitted
├── CompileError      native code could not be generated (also: an undefined symbol)
├── CacheError        the code cache cannot be read or written
└── HostError         the operating system refused something (mapping, signals)
"""

from __future__ import annotations


class Error(Exception):
    """Base of all errors of this package."""


class DefinitionError(Error):
    """An instruction definition or encoding row is wrong."""


class AssemblyError(Error):
    """Assembly text that no instruction accepts."""


class LoadError(Error):
    """A file that cannot be run: not ELF, for an unsupported machine, damaged."""


class MemoryFault(Error):
    """An access to guest memory that is not mapped or not permitted."""

    def __init__(self, address: int, access: str = "read") -> None:
        super().__init__(f"guest address {address:#x} cannot be accessed ({access})")
        self.address = address
        self.access = access


class CompileError(Error):
    """Native code could not be generated."""


class CacheError(Error):
    """The code cache cannot be read or written."""


class HostError(Error):
    """The operating system refused something that anyarch needs."""
