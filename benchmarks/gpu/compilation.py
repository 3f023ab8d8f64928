"""``python -m benchmarks.gpu.compilation``: how long kernels take to compile, and to load again.

Processor time of a kernel's text and of LLVM, the least of some turns in one process that has done
it before; then how long a new process takes to load the module and the kernel from the code cache
and to launch it, from the call of `Device.load` on, after one launch of another kernel.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

KERNELS: Final = Path(__file__).with_name("kernels.ptx")
BLOCKS: Final = {"transpose": (32, 8, 1), "stencil": (32, 8, 1), "matmul": (16, 16, 1)}
TURNS: Final = 5
WANTED: Final = 300  # instructions that the last column is for
# What a new process does. Kernels are only asked for: a launch needs data.
_LOAD: Final = """
import sys, time, json
from anyarch import gpu
device = gpu.Device("cpu")
device.load(".version 8.0\\n.target sm_75\\n.address_size 64\\n.visible .entry k() { ret; }")[
    "k"].launch(1, 32)
blocks, found = json.loads(sys.argv[2]), {}
for name, block in blocks.items():
    start = time.perf_counter()
    kernel = device.load(sys.argv[1])[name]
    kernel._handle.variant(tuple(block))
    found[name] = time.perf_counter() - start
print(json.dumps(found))
"""


def instructions(name: str) -> int:
    """How many a kernel has."""
    from anyarch.gpu.ptx import parse
    from anyarch.gpu.ptx.tree import Instruction

    body = parse(KERNELS.read_text()).functions[name].statements or []
    return sum(isinstance(statement, Instruction) for statement in body)


def compiling(block: dict[str, tuple[int, int, int]]) -> dict[str, float]:
    """Seconds of processor time that each kernel takes."""
    from anyarch.emit.compile import compile_blob
    from anyarch.gpu.cpu.kernel import compile_text
    from anyarch.gpu.cpu.layout import lay_out_module
    from anyarch.gpu.ptx import parse

    module = parse(KERNELS.read_text())
    layout = lay_out_module(module)

    def timed(action: Callable[[], object]) -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    found = {}
    for name, size in block.items():
        kernel = module.kernels[name]

        def compile_it() -> None:
            compile_blob(compile_text(module, layout, kernel, size), opt=3)  # noqa: B023

        found[name] = min(timed(compile_it) for _ in range(TURNS))
    return found


def loading(block: dict[str, tuple[int, int, int]]) -> dict[str, float]:
    """Seconds that a new process takes for each kernel, the median of some: from the cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = dict(os.environ, ANYARCH_CACHE=cache)
        command = [sys.executable, "-c", _LOAD, str(KERNELS), json.dumps(block)]
        turns = [
            json.loads(
                subprocess.run(command, env=environment, check=True, capture_output=True).stdout
            )
            for _ in range(TURNS + 1)
        ][1:]
    return {name: statistics.median(turn[name] for turn in turns) for name in block}


def main() -> None:
    """Print the table."""
    from anyarch.gpu.ptx import parse

    block = {name: BLOCKS.get(name, (256, 1, 1)) for name in parse(KERNELS.read_text()).kernels}
    compiled, loaded = compiling(block), loading(block)
    print(f"{'':16}instructions   compile, s   load, ms   compile of {WANTED}, s")
    shares = []
    for name in block:
        count = instructions(name)
        shares.append(compiled[name] * WANTED / count)
        print(
            f"{name:16}{count:12}   {compiled[name]:10.3f}   {loaded[name] * 1e3:8.1f}   "
            f"{shares[-1]:17.3f}"
        )
    print(f"{'median':16}{'':28}{statistics.median(loaded.values()) * 1e3:8.1f}   "
          f"{statistics.median(shares):17.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
