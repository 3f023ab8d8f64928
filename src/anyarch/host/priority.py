"""Taking the processor only when nobody else wants it."""

from __future__ import annotations

import contextlib
import os
from typing import Final

_LEAST: Final = 19


def stand_back() -> None:
    """Give this process, which leads a session of its own, the lowest priority.

    Kernels that share the processor out between sessions first (autogroup, see sched(7)) heed a
    process's priority within its session only: that of the session is another.
    """
    os.nice(_LEAST)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
            file.write(str(_LEAST))
