"""What this package needs from the layers below: an engine and an address space."""

from __future__ import annotations

from typing import Protocol

from anyarch.host.context import Context, ExitCode
from anyarch.linux.abi import Registers


class Exit(Protocol):
    """Why :meth:`Engine.run` returned."""

    @property
    def code(self) -> ExitCode: ...
    @property
    def pc(self) -> int: ...
    @property
    def address(self) -> int: ...
    @property
    def detail(self) -> int: ...


class Region(Protocol):
    """One mapping of guest memory."""

    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def prot(self) -> int: ...
    @property
    def name(self) -> str: ...


class Space(Protocol):
    """Guest memory, mapped flat: host address = base + guest address."""

    @property
    def base(self) -> int: ...
    @property
    def limit(self) -> int: ...

    def map(
        self,
        address: int,
        nbytes: int,
        prot: int,
        *,
        fixed: bool = False,
        noreplace: bool = False,
        fd: int = -1,
        offset: int = 0,
        shared: bool = False,
        name: str = "",
    ) -> int: ...
    def unmap(self, address: int, nbytes: int) -> None: ...
    def protect(self, address: int, nbytes: int, prot: int) -> None: ...
    def read(self, address: int, nbytes: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...
    def read_cstring(self, address: int, limit: int) -> bytes: ...


class Engine(Protocol):
    """Runs guest code, and host system calls in a way that signals can interrupt."""

    @property
    def state(self) -> Registers: ...
    @property
    def context(self) -> Context: ...

    def run(self, budget: int | None = None) -> Exit: ...
    def syscall(self, number: int, /, *arguments: int) -> int: ...
    def flush(self) -> None: ...
    def claim_signal(self, signum: int, flags: int) -> None: ...
    def release_signal(self, signum: int) -> None: ...
