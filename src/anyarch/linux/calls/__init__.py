"""The system calls, a file per family; :data:`CALLS` is all of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from anyarch.linux.calls.aio import AIO
from anyarch.linux.calls.directories import DIRECTORIES
from anyarch.linux.calls.events import EVENTS
from anyarch.linux.calls.files import FILES
from anyarch.linux.calls.ipc import IPC
from anyarch.linux.calls.keys import KEYS
from anyarch.linux.calls.memory import MEMORY
from anyarch.linux.calls.mounts import MOUNTS
from anyarch.linux.calls.processes import PROCESSES
from anyarch.linux.calls.signals import SIGNALS
from anyarch.linux.calls.sockets import SOCKETS
from anyarch.linux.calls.table import Call
from anyarch.linux.calls.threads import THREADS
from anyarch.linux.calls.time import TIME

_FAMILIES = (
    *(FILES, DIRECTORIES, MOUNTS, MEMORY, PROCESSES, THREADS, SIGNALS, TIME, EVENTS, SOCKETS, IPC),
    *(KEYS, AIO),
)
CALLS: Final[Mapping[str, Call]] = {
    name: call for family in _FAMILIES for name, call in family.calls.items()
}
