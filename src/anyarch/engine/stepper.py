"""The reference engine where a native one is expected: definitions run one by one in Python.

It shares with the interpreter the context, signals and host system calls, and nothing that
executes guest instructions.
"""

from __future__ import annotations

from anyarch.engine.exits import Exit
from anyarch.engine.interpreter import Interpreter
from anyarch.host import signals
from anyarch.host.context import FIELDS, ExitCode


class Stepper(Interpreter):
    """An engine with the interface of :class:`Interpreter`, run by the reference engine."""

    def run(self, budget: int | None = None) -> Exit:
        """Step until something needs the layer above, or the budget is spent."""
        signals.prepare_thread(self.context)
        reference = self.reference
        stop = FIELDS["stop"][0] >> 2
        left = -1 if budget is None else budget
        while left:
            if self._u32[stop]:
                return Exit(ExitCode.STOP, self.state.pc)
            ended = reference.step()
            if ended is None or ended.code is ExitCode.SYSCALL:
                left -= 1
            if ended is not None:
                self._set("remaining", max(left, 0))
                if ended.code is ExitCode.FAULT:  # where native code's signal handler would say it
                    self.context.set("fault_signal", ended.detail)
                    self.context.set("fault_code", 1)
                return ended
        self._set("remaining", 0)
        return Exit(ExitCode.BUDGET, self.state.pc)

    def step(self) -> Exit | None:
        """Run one instruction."""
        return self.reference.step()

    @property
    def retired(self) -> int:
        """Instructions completed."""
        return self.reference.retired
