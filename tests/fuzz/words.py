"""Run random words as code on a Cpu: ``python -m tests.fuzz.words SEED COUNT``.

A process of its own, because what it looks for are crashes and hangs. Prints how often each exit
was seen.
"""

from __future__ import annotations

import random
import sys
from collections import Counter

from anyarch import Cpu
from anyarch.host.context import ExitCode
from tests.fuzz.lockstep import PAGE, U64, Maker

CODE, DATA = 0x10000, 0x20000


def stream(source: random.Random, maker: Maker) -> bytes:
    """Bytes of code: of three kinds, by turns or mixed."""
    kind = source.randrange(4)
    parts = []
    for _ in range(source.randrange(1, 60)):
        which = kind if kind < 3 else source.randrange(3)
        if which == 0:
            parts.append(source.randbytes(4))
        elif which == 1:
            parts.append(source.randbytes(2))
        else:
            insn = maker.insn(maker.form(), 8)
            parts.append(insn.word.to_bytes(insn.nbytes, "little"))
    return b"".join(parts)


def run_one(seed: int) -> ExitCode:
    """One stream from random registers; its exit."""
    source = random.Random(seed)
    maker = Maker(source, pool=[0, *source.sample(range(1, 32), 6)])
    cpu = Cpu("riscv64", bits=source.choice((20, 32, 38)))
    start = CODE + 2 * source.randrange(PAGE // 2)
    code = stream(source, maker)
    cpu.map(CODE, 2 * PAGE, source.choice(("rx", "rwx", "rwx", "x")))
    cpu.map(DATA, 3 * PAGE, "rw")
    cpu.protect(DATA + 2 * PAGE, PAGE, source.choice(("r", "-")))
    cpu.write(start, code[: CODE + 2 * PAGE - start])
    for index in range(1, 32):
        cpu[f"x{index}"] = maker.integer()
    for index in range(32):
        cpu[f"f{index}"] = maker.real()
    cpu["fflags"], cpu["frm"] = source.randrange(32), source.choice((0, 1, 4, 5, 7, 99, U64))
    hooks: list[int] = []
    if source.random() < 0.2:
        at = start + 2 * source.randrange(20)
        cpu.hook_code(lambda _, pc: hooks.append(pc), at, at + source.choice((2, 4, 64)))
    if source.random() < 0.2:
        cpu.hook_syscall(lambda _: None)
    until = start + 2 * source.randrange(100) if source.random() < 0.3 else None
    ended = cpu.run(start, until=until, count=source.choice((1, 10, 3000, 3000)))
    for _ in range(source.randrange(3)):
        ended = cpu.run(count=source.choice((1, 100)))
        cpu.step()
    assert ended.pc is not None and cpu.registers()["zero"] == 0
    return ended.code


def main() -> None:
    """Run COUNT streams from SEED on."""
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    seen: Counter[str] = Counter()
    for number in range(seed, seed + count):
        try:
            seen[run_one(number).name] += 1
        except BaseException:
            print(f"seed {number}", file=sys.stderr)
            raise
    print(*(f"{name}={times}" for name, times in sorted(seen.items())))


if __name__ == "__main__":
    main()
