"""How long the native translator takes for an instruction that it has never seen.

``python -m benchmarks.decoding``: a straight line of random instructions of a compiler's mix runs
once; its second run, from records, is subtracted.
"""

from __future__ import annotations

import random
from time import perf_counter

from anyarch import Cpu
from anyarch.engine.interpreter import Interpreter
from anyarch.isa.assembly import assemble

# Weights after what compiled riscv64 programs contain.
MIX = (
    ("c.mv a{0}, a{1}", 12),
    ("c.li a{0}, {2}", 8),
    ("c.addi a{0}, {3}", 8),
    ("c.ldsp a{0}, 16(sp)", 10),
    ("c.sdsp a{0}, 24(sp)", 10),
    ("ld a{0}, {4}(sp)", 10),
    ("sd a{0}, {4}(sp)", 8),
    ("lw a{0}, {4}(sp)", 5),
    ("addi a{0}, a{1}, {2}", 12),
    ("add a{0}, a{1}, a{0}", 6),
    ("slli a{0}, a{1}, {3}", 4),
    ("bne zero, zero, .+8", 8),
    ("beq sp, zero, .+8", 4),
    ("mul a{0}, a{1}, a{0}", 1),
    ("fadd.d fa{0}, fa{1}, fa{0}", 1),
)
COUNT = 400_000
BASE = 0x100_0000


def measure(repeat: int = 5) -> float:
    """Median microseconds for a new instruction."""
    cpu = Cpu("riscv64")
    code = _program(cpu, COUNT)
    nbytes = (len(code) + 4096) & -4096
    cpu.map(BASE, nbytes)
    cpu.map(0x10000, 0x1000)
    cpu["sp"] = 0x10000
    cpu.write(BASE, code)
    engine = cpu._engine
    times = []
    for _ in range(repeat):
        engine.flush()
        first, second = (_time(cpu, engine) for _ in range(2))
        times.append((first - second) / COUNT * 1e6)
    return sorted(times)[len(times) // 2]


def _program(cpu: Cpu, count: int) -> bytes:
    choose = random.Random(1)
    texts, weights = zip(*MIX, strict=True)
    known: dict[str, bytes] = {}
    parts = []
    for template in choose.choices(texts, weights, k=count):
        text = template.format(
            choose.randrange(6), choose.randrange(6), choose.randrange(-30, 30),
            choose.randrange(1, 31), 8 * choose.randrange(60),
        )  # fmt: skip
        if text not in known:
            known[text] = assemble(cpu.architecture, text)
        parts.append(known[text])
    return b"".join(parts) + assemble(cpu.architecture, "ebreak")


def _time(cpu: Cpu, engine: Interpreter) -> float:
    cpu.pc = BASE
    began = perf_counter()
    engine.run()
    return perf_counter() - began


if __name__ == "__main__":
    print(f"{measure():.3f} µs for an instruction never seen")
