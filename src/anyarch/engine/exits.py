"""How execution ends: the same for every engine."""

from __future__ import annotations

from anyarch.data import dataclass
from anyarch.host.context import ExitCode


@dataclass(frozen=True, slots=True)
class Exit:
    """Why an engine returned, with the exact state in place.

    ``pc`` is the guest address where execution goes on or that is to blame, as
    :class:`ExitCode` says; ``address`` the guest address of a fault; ``detail`` a signal number,
    exception cause or hook.
    """

    code: ExitCode
    pc: int
    address: int = 0
    detail: int = 0
