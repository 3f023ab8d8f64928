"""A program on a terminal of its own, as a person sits at it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.real.starting import PATIENCE

_ROWS, _COLUMNS = 24, 80


class Terminal:
    """Runs a command as the leader of a session whose terminal is ours.

    ``screen`` is everything that it has printed. Leaving the context hangs up.
    """

    def __init__(
        self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self.screen = ""
        self._looked_at = 0
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._master)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def type(self, text: str) -> None:
        """Press keys; a line ends in ``\\r``."""
        os.write(self._master, text.encode())

    def wait_for_job(self, seconds: float = 120 * PATIENCE) -> None:
        """Until another process group than the command's has the terminal: a shell says which job
        it continues before it gives the terminal away, and keys reach whoever has it."""
        end = time.monotonic() + seconds
        while os.tcgetpgrp(self._master) == self.process.pid:
            assert time.monotonic() < end, "the command has kept the terminal"
            time.sleep(0.01)

    def expect(self, text: str, seconds: float = 120 * PATIENCE) -> str:
        """What is printed up to ``text``, from where the last call stopped.

        Raises AssertionError with the screen where it does not come.
        """
        end = time.monotonic() + seconds
        while (found := self.screen.find(text, self._looked_at)) < 0:
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            try:
                data = os.read(self._master, 1 << 16) if ready else b""
            except OSError:  # EIO: nobody has it open any more
                data = b""
            assert data, f"no {text!r} in {self.screen[self._looked_at :]!r}"
            self.screen += data.decode(errors="replace")
        before = self.screen[self._looked_at : found]
        self._looked_at = found + len(text)
        return before
