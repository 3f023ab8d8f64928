"""Compiling ahead of time: from some addresses on, everything that code reaches.

Each region that is compiled tells where else code begins: what it calls, addresses of code that
it computes, where it was cut off, and the heads of its loops, which are entered after a sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Final

from anyarch.engine.bundle import CompiledRegion, digest_of, unpack
from anyarch.engine.compiler import Request, compile_with
from anyarch.engine.regions import Block, Key, Occurrence, Region, RegionCompiler
from anyarch.errors import CompileError, DefinitionError, MemoryFault
from anyarch.ir.graph import Node
from anyarch.ir.ops import OPS, evaluate

Place = tuple[str, int]  # a register: its file and number

BATCH: Final = 8  # regions that a worker is given at once
_AHEAD: Final = 2  # batches for each worker that are on their way


@dataclass(frozen=True, slots=True)
class Text:
    """A mapping: guest address, contents, and if it is executable the key of its regions."""

    start: int
    data: bytes
    key: str

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + len(self.data)


def reader(texts: Iterable[Text]) -> Callable[[int, int], bytes]:
    """Reads code; MemoryFault outside."""
    kept = list(texts)

    def read(address: int, nbytes: int) -> bytes:
        for text in kept:
            if text.start <= address and address + nbytes <= text.end:
                return text.data[address - text.start : address - text.start + nbytes]
        raise MemoryFault(address, "execute")

    return read


@dataclass(frozen=True, slots=True)
class Explored:
    """What a worker found at a pc: the region, packed (empty where it was known, or cannot be
    compiled), the code that it covers, other code, and other places of the same code."""

    pc: int
    packed: bytes
    ranges: tuple[tuple[int, int], ...]
    entries: tuple[int, ...]
    inner: tuple[int, ...]
    heads: tuple[int, ...]


class Explorer:
    """A worker: compiles regions and says what they reach. ``data`` is what jump tables are in."""

    def __init__(
        self, regions: RegionCompiler, texts: Iterable[Text], data: Iterable[Text] = ()
    ) -> None:
        self._regions = regions
        self._compile = compile_with(regions)
        self._texts = list(texts)
        self._read = reader(self._texts)
        self._read_data = reader([*self._texts, *data])

    def explore(self, pc: int, *, known: bool) -> Explored | None:
        """The region at ``pc``, which is not compiled again where it is ``known``."""
        region = self._regions.discover(
            pc, self._read, self._read_data, is_constant=self._is_constant
        )
        if region is None:
            return None
        packed = b""
        if not known:
            text = next(text for text in self._texts if text.start <= pc < text.end)
            try:
                compiled = self._compile(
                    Request(
                        pc, text.start, text.data, self._read_data, is_constant=self._is_constant
                    ),
                    region,
                )
            except (CompileError, DefinitionError):
                return None
            if compiled is None:
                return None
            packed = compiled.pack()
        entries: set[int] = set()
        inner: set[int] = set()
        heads: set[int] = set()
        for block in region.blocks.values():
            entries |= self._pointers(block)
            for key in block.successors:
                if key not in region.blocks:
                    inner.add(key[1])
                elif key[1] <= block.pc and block.key in _reached(region, key):
                    heads.add(key[1])
        return Explored(
            pc,
            packed,
            tuple(region.ranges),
            tuple(entries - {pc}),
            tuple(inner),
            tuple(heads - {pc}),
        )

    def _pointers(self, block: Block) -> set[int]:
        """Addresses of code that a block computes: callees, and functions that it hands on."""
        known: dict[Place, int] = {}
        found: set[int] = set()
        for occurrence in block.instructions:
            if not occurrence.template.is_native:
                known.clear()
                continue
            written: list[tuple[Place, int | None]] = []
            for effect in occurrence.template.graph.effects:
                node = effect.node
                if node.op == "jump" and self._regions.links(occurrence):
                    target = _fold(occurrence, node.args[0], known)
                    if target is not None:
                        found.add(target)
                elif node.op == "write":
                    where = str(node.attrs[0]), occurrence.constant(node.args[0])
                    value = _fold(occurrence, node.args[1], known)
                    written.append((where, None if effect.guard is not None else value))
                    # The first of two instructions that make an address gives none yet.
                    if value is not None and _registers(occurrence, node.args[1]):
                        found.add(value)
            for where, value in written:
                known.pop(where, None)
                if value is not None:
                    known[where] = value
        return {pc for pc in found if self._is_code(pc)}

    def _is_constant(self, address: int, nbytes: int) -> bool:
        try:
            return bool(self._read_data(address, nbytes))
        except MemoryFault:
            return False

    def _is_code(self, pc: int) -> bool:
        try:
            return pc % 2 == 0 and any(self._read(pc, 2))
        except MemoryFault:
            return False


def _reached(region: Region, start: Key) -> set[Key]:
    """The blocks of a region that can follow one."""
    reached: set[Key] = set()
    work = [start]
    while work:
        block = region.blocks.get(work.pop())
        if block is not None and block.key not in reached:
            reached.add(block.key)
            work.extend(block.successors)
    return reached


def _fold(found: Occurrence, node: Node, known: dict[Place, int]) -> int | None:
    """The value of a node where constants and known registers determine it."""
    if node.op == "const" or node.number in found.template.constants:
        return found.constant(node)
    if node.op == "register":
        return known.get((str(node.attrs[0]), found.constant(node.args[0])))
    if node.op not in OPS or not node.args:
        return None
    values = []
    for arg in node.args:
        value = _fold(found, arg, known)
        if value is None:
            return None
        values.append(value)
    sizes = tuple(arg.size for arg in node.args)
    return evaluate(node.op, node.size, tuple(values), sizes, tuple(int(a) for a in node.attrs))


def _registers(found: Occurrence, node: Node) -> bool:
    """Whether a value depends on a register."""
    if node.number in found.template.constants:
        return False
    return node.op == "register" or any(_registers(found, arg) for arg in node.args)


@dataclass(slots=True)
class Progress:
    """How far it is: regions that were found, are done, were compiled or had been before."""

    found: int = 0
    done: int = 0
    compiled: int = 0
    known: int = 0
    instructions: int = 0
    nbytes: int = 0  # of native code, compiled now
    written: int = 0  # bytes of the bundle file


@dataclass(slots=True)
class _Plan:
    """What is still to be compiled: entries of functions first."""

    texts: list[Text]
    entries: deque[int] = field(default_factory=deque)
    inner: deque[int] = field(default_factory=deque)
    seen: set[int] = field(default_factory=set)
    covered: dict[int, bytearray] = field(default_factory=dict)  # by text: a byte for two of code

    def text_at(self, pc: int) -> Text | None:
        """The mapping that contains a pc."""
        return next((text for text in self.texts if text.start <= pc < text.end), None)

    def add(self, pcs: Iterable[int], queue: deque[int]) -> None:
        for pc in pcs:
            if pc not in self.seen and self.text_at(pc) is not None:
                self.seen.add(pc)
                queue.append(pc)

    def cover(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Note that a region has this code."""
        for start, end in ranges:
            text = self.text_at(start)
            if text is not None:
                marks = self.covered.setdefault(text.start, bytearray(len(text.data) // 2 + 1))
                low, high = (start - text.start) // 2, (end - text.start + 1) // 2
                marks[low:high] = b"\1" * (high - low)

    def is_covered(self, pc: int) -> bool:
        """Whether some region has the code at a pc."""
        text = self.text_at(pc)
        marks = self.covered.get(text.start) if text is not None else None
        return text is not None and marks is not None and bool(marks[(pc - text.start) // 2])

    def take(self, count: int, *, is_idle: bool) -> list[int]:
        """What to compile next. Where a region was cut off is left for when nothing else is to be
        done, and left out where another has the code."""
        taken: list[int] = []
        while len(taken) < count and self.entries:
            taken.append(self.entries.popleft())
        while is_idle and len(taken) < count and self.inner:
            pc = self.inner.popleft()
            if not self.is_covered(pc):
                taken.append(pc)
        return taken


def compile_ahead(
    texts: list[Text],
    roots: Iterable[int],
    known: dict[int, list[CompiledRegion]],
    executor: Executor,
    jobs: int,
    explore: Callable[[list[tuple[int, bool]]], list[Explored | None]],
) -> Iterator[tuple[Progress, list[CompiledRegion]]]:
    """Compile what ``roots`` reach, and yield how far it is, with the regions that are new.

    ``explore`` runs in the executor's workers: it takes pcs, each with whether a region for it is
    ``known`` (the regions of earlier runs, by pc).
    """
    plan, progress, read = _Plan(texts), Progress(), reader(texts)
    plan.add(sorted(roots), plan.entries)
    running: set[Future[list[Explored | None]]] = set()
    while True:
        is_idle = not running and not plan.entries
        while len(running) < _AHEAD * jobs and (pcs := plan.take(BATCH, is_idle=is_idle)):
            batch = [(pc, any(_applies(r, read) for r in known.get(pc, ()))) for pc in pcs]
            progress.known += sum(is_known for _, is_known in batch)
            running.add(executor.submit(explore, batch))
        if not running:
            return
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        made: list[CompiledRegion] = []
        for future in finished:
            explored = future.result()
            progress.done += len(explored)
            for one in explored:
                if one is None:
                    continue
                plan.cover(one.ranges)
                plan.add(one.entries, plan.entries)
                plan.add(one.heads, plan.entries)
                plan.add(one.inner, plan.inner)
                made.extend(unpack(one.packed))
        for region in made:
            progress.compiled += 1
            progress.instructions += region.instructions
            progress.nbytes += len(region.code)
        progress.found = progress.done + len(plan.entries) + len(plan.inner) + BATCH * len(running)
        yield progress, made


def _applies(region: CompiledRegion, read: Callable[[int, int], bytes]) -> bool:
    try:
        return digest_of(region.ranges, read) == region.digest
    except MemoryFault:
        return False
