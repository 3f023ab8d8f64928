"""Hot code: where running threads are seen often, regions are asked for.

A sampler has threads note their pc now and then: at taken branches and calls, where they poll
anyway, so that counting costs nothing.
"""

from __future__ import annotations

import threading
from _thread import LockType, allocate_lock, start_new_thread
from collections import Counter
from collections.abc import Callable
from time import process_time
from typing import TYPE_CHECKING, Final

from anyarch.engine.convention import FROM_CALL, FROM_REGION
from anyarch.host.descriptors import unshare_descriptors
from anyarch.host.signalmask import block_signals, set_host_mask

if TYPE_CHECKING:
    from anyarch.engine.interpreter import Interpreter, Note
    from anyarch.engine.jit import Jit

_LONGEST: Final = 16  # bytes of an instruction
_LONGEST_INTERVAL: Final = 0.02  # seconds between samples
_QUIET: Final = 50  # samples without a running guest, after which the sampler sleeps
_NAP: Final = 0.1  # seconds
_GRACE: Final = 0.01  # seconds that a guest runs before it is sampled
_FAR: Final = 4096  # bytes: so long a jump is no branch; procedure linkage tables call like that
_MOST_LEFT: Final = 3000  # roots: there is no time to compile more
_COVERED: Final = 4  # regions of which each doubles the samples that another with the code needs


class Sampler:
    """Finds hot code and has it compiled, in two threads of its own.

    One asks running threads to note some polls now and then. The other compiles what has been seen
    ``threshold`` times, more often where regions have the code already but begin elsewhere. Roots
    of regions are heads of loops and of functions: of some polls in a row the first at one counts.
    """

    def __init__(self, jit: Jit, *, threshold: int = 2, interval: float = 0.001) -> None:
        self.jit, self.threshold, self.interval = jit, threshold, interval
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._counts: Counter[int] = Counter()
        self._passed: Counter[int] = Counter()  # where others came first
        self._hints: dict[int, bytes] = {}
        self._inner: set[int] = set()  # nothing has called them
        self._needs: dict[int, int] = {}  # samples, where that is not the threshold
        self._found = False
        self._wake = threading.Event()
        self._ready = threading.Event()
        self._is_asleep = False
        self._done = False
        self._threads: list[LockType] = []  # released when they end

    def begin(self, pc: int) -> None:
        """A guest is about to run from ``pc``: install what the cache has, and start sampling."""
        if not self._threads:
            self.jit.load(pc)
            before = block_signals()  # they take none of the guest's
            self._threads = [_start(work) for work in (self._sample, self._compile)]
            set_host_mask(before)
        elif self._is_asleep:
            self._wake.set()

    def after_fork(self) -> None:
        """In a forked child: begin anew when it runs."""
        self.jit.after_fork()
        self._begin_anew()

    def passed(self, runner: Interpreter) -> None:
        """Nothing is to be done: notes tell what is hot."""

    def consider(self, notes: list[Note]) -> None:
        """Count the first root that a thread came to, of those without a region. The others tell
        what else to leave for the next run."""
        is_first = True
        for note in notes:
            if self.jit.is_settled(note.pc) or not self._is_root(note):
                continue
            is_call = self._is_call(note)
            if is_call:
                self._inner.discard(note.pc)
            elif note.pc not in self._hints:
                self._inner.add(note.pc)
            if is_first:
                is_first = False
                self._hints[note.pc] = note.registers
                self._count(note.pc)
            else:
                self._hints.setdefault(note.pc, b"" if is_call else note.registers)
                self._passed[note.pc] += 1

    def _count(self, pc: int) -> None:
        self._found = True
        self._counts[pc] += 1
        if self._counts[pc] == 1 < self.threshold and self.jit.knows(pc):
            self._counts[pc] = self.threshold  # it costs little
        if self._counts[pc] == self._needs.get(pc, self.threshold):
            self._ready.set()

    def _is_root(self, note: Note) -> bool:
        """Whether a jump went backwards, was a call, or left a region; but was no return."""
        if not note.source or note.pc == note.link:
            return False
        if note.source == FROM_REGION or self._is_call(note):
            return True
        return note.pc <= self.jit.arena.find(note.source)[2]

    def _is_call(self, note: Note) -> bool:
        """A jump may hand on the call that led to it: then it leads far."""
        if note.source in (FROM_REGION, FROM_CALL):
            return note.source == FROM_CALL
        jump = self.jit.arena.find(note.source)[2]
        return 0 < note.link - jump <= _LONGEST or abs(note.pc - jump) > _FAR

    def provide(self, pc: int) -> bool:
        """It is not asked for code: guests go on in the interpreter."""
        return False

    def _sample(self) -> None:
        unshare_descriptors()
        self._wake.wait(_GRACE)
        interval = pause = self.interval
        asked, quiet = 0.0, 0
        while not self._done:
            runners = list(self.jit.arena.runners)
            quiet = 0 if any(runner.inside for runner in runners) else quiet + 1
            used = process_time()
            if used - asked >= interval / 2:
                asked, pause = used, interval
                self._found = False
                self.jit.load_new()
                has_come = self.jit.load_visited()
                for runner in runners:
                    self.consider(runner.take_notes())
                    runner.sample()
                # Where all that is hot is compiled there is less and less to ask for.
                is_new = self._found or has_come
                interval = self.interval if is_new else min(interval * 1.1, _LONGEST_INTERVAL)
            else:  # the guest waits, or others have the processor
                pause = min(pause * 2, _LONGEST_INTERVAL)
            # Asleep it waits until a guest runs; who begins in this instant waits for the end of a
            # nap.
            self._is_asleep = quiet >= _QUIET
            if self._wake.wait(_NAP if self._is_asleep else pause):
                self._wake.clear()
            self._is_asleep = False

    def _compile(self) -> None:
        unshare_descriptors()
        while not self._done:
            self._ready.wait()
            self._ready.clear()
            while not self._done:
                counts = list(self._counts.items())  # at once: guests note where they are
                due = [item for item in counts if self._is_due(*item)]
                if not due:
                    break
                pc, _ = max(due, key=lambda item: item[1])
                if self._is_postponed(pc):
                    continue
                if self.jit.add(pc, self._hints.pop(pc, b"")):
                    self._credit(pc)
                del self._counts[pc]
        # Here, for the connection to the compiler is in this thread's table of descriptors.
        roots = sorted(self._hints.items(), key=lambda root: -self._seen(root[0]))
        self.jit.leave(
            (pc, hints, self._is_postponed(pc), pc not in self._counts)
            for pc, hints in roots[:_MOST_LEFT]
        )

    def _seen(self, pc: int) -> int:
        return self._counts[pc] + self._passed[pc]

    def _is_due(self, pc: int, count: int) -> bool:
        return count >= self._needs.get(pc, self.threshold)

    def _is_postponed(self, pc: int) -> bool:
        """Have what is no function wait for more samples where there are regions with its code:
        control comes to where one of them begins, mostly soon, and what is compiled again takes
        time from others."""
        if pc not in self._inner or self.jit.knows(pc):
            return False
        covering = min(self.jit.count_covering(pc), _COVERED)
        self._needs[pc] = self.threshold << covering
        return not self._is_due(pc, self._counts[pc])

    def _credit(self, pc: int) -> None:
        """What a hot region calls needs one sample less, for calls between regions are cheap; none
        where it is compiled already."""
        installed = self.jit.installed.get(pc)
        for target in installed.region.targets if installed is not None else ():
            if target not in self._counts and not self.jit.is_settled(target):
                self._counts[target] = self.threshold - (not self.jit.knows(target))

    def stop(self) -> None:
        """Sample no more; what was seen and is not compiled is left to the compiler."""
        self._done = True
        self.jit.end()
        self._wake.set()
        self._ready.set()

    def close(self) -> None:
        """Stop, and wait for a moment until what is being compiled is done."""
        self.stop()
        for running in self._threads:
            if running.acquire(timeout=1):
                running.release()


def _start(work: Callable[[], None]) -> LockType:
    """Start a thread; the lock is released when it ends.

    Unlike threading.Thread.start this does not wait for it: every forked child begins here, and
    would sleep where nothing in the guest does, which others can see in /proc.
    """
    running = allocate_lock()
    running.acquire()

    def run() -> None:
        try:
            work()
        finally:
            running.release()

    start_new_thread(run, ())
    return running
