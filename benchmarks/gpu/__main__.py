"""PTX on the cpu against the same algorithms in C, and in OpenCL C where a platform has it.

python -m benchmarks.gpu [--threads N] [--opencl] [KERNEL...]

Each figure is the ratio of processor times of interleaved runs, theirs over ours: above 1 we are
faster. Results are compared first. With --opencl every platform with a CPU that the loader finds
takes part: PoCL (apt-get install pocl-opencl-icd), Intel's (pip install intel-opencl-rt
intel-cmplr-lib-rt; OCL_ICD_VENDORS names a folder with a file that names its libintelocl.so).
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from anyarch import gpu
from benchmarks.gpu import opencl

HERE = os.path.dirname(os.path.abspath(__file__))
ROUNDS = 7


def compile_reference(directory: str) -> ctypes.CDLL:
    """The C code, compiled for this machine."""
    target = os.path.join(directory, "reference.so")
    flags = ["-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC"]
    source = os.path.join(HERE, "reference.c")
    subprocess.run(["gcc", *flags, source, "-o", target, "-lm"], check=True)
    return ctypes.CDLL(target)


class Case:
    """One kernel: its launch, C's arguments, and arrays that both fill."""

    def __init__(self, grid: Any, block: Any, arguments: list[Any], outputs: list[int]) -> None:
        self.grid, self.block = grid, block
        self.arguments, self.outputs = arguments, outputs
        self.c_arguments: list[Any] | None = None
        self.combine: Callable[[np.ndarray], Any] = lambda a: a
        self.exact = False


def cases() -> dict[str, Case]:
    """The twelve kernels with data."""
    rng = np.random.default_rng(5)

    def real(*shape: int) -> np.ndarray:
        return rng.random(shape, "f4")

    result: dict[str, Case] = {}
    n = 1 << 20
    result["saxpy"] = Case(n // 256, 256, [n, 2.5, real(n), real(n)], [3])
    g = 120  # blocks: a power of two apart, what a thread reads would share lines of the cache
    case = result["reduction"] = Case(g, 256, [real(n), np.zeros(g, "f4"), n], [1])
    case.c_arguments = [g]
    case.combine = lambda a: a.sum()
    m = 1056  # rows a power of two apart would share lines of the cache
    result["transpose"] = Case((m // 32, m // 32), (32, 8), [real(m, m), real(m, m), m], [1])
    k = 256
    arrays = [real(k, k), real(k, k), np.zeros((k, k), "f4")]
    result["matmul"] = Case((k // 16, k // 16), (16, 16), [*arrays, k], [2])
    result["stencil"] = Case(
        (m // 32, m // 8), (32, 8), [real(m, m), np.zeros((m, m), "f4"), m, m], [1]
    )
    data = rng.integers(0, 256, n).astype("u1")
    case = result["histogram"] = Case(g, 256, [data, np.zeros(256, "u4"), n], [1])
    case.exact, case.c_arguments = True, [g]
    b = 2048
    result["nbody"] = Case(b // 256, 256, [real(b, 4), np.zeros((b, 4), "f4"), b, 0.01], [1])
    q = 1 << 18
    prices = [real(q) * 25 + 5, real(q) * 99 + 1, real(q) * 9 + 0.25]
    outputs = [np.zeros(q, "f4"), np.zeros(q, "f4")]
    result["black_scholes"] = Case(q // 256, 256, [*prices, *outputs, q], [3, 4])
    numbers = rng.integers(-1000, 1000, n).astype("i4")
    case = result["scan"] = Case(n // 512, 256, [numbers, np.zeros(n, "i4"), n], [1])
    case.exact = True
    h = 1 << 18
    case = result["bitonic"] = Case(h // 512, 256, [rng.integers(0, 1 << 30, h).astype("i4")], [0])
    case.exact, case.c_arguments = True, [h]
    r = 1 << 16
    rows = np.concatenate([[0], np.cumsum(rng.integers(4, 24, r))]).astype("i4")
    cols = rng.integers(0, r, rows[-1]).astype("i4")
    result["spmv"] = Case(
        r // 256, 256, [rows, cols, real(rows[-1]), real(r), np.zeros(r, "f4"), r], [4]
    )
    w = 1 << 16
    words = rng.integers(0, 1 << 32, (16, w)).astype("u4")
    case = result["sha256"] = Case(w // 256, 256, [words, np.zeros((8, w), "u4"), w], [1])
    case.exact = True
    return result


def c_value(value: Any) -> Any:
    """A Python value as C takes it."""
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int(value)


Runner: TypeAlias = Callable[[], None]


def in_c(library: ctypes.CDLL) -> Callable[[str, Case, list[Any]], Runner]:
    """What runs a case in C."""

    def runner(name: str, case: Case, arguments: list[Any]) -> Runner:
        function = getattr(library, name)
        passed = [c_value(a) for a in (*arguments, *(case.c_arguments or ()))]

        def run() -> None:
            function(*passed)

        return run

    return runner


def in_opencl(platform: opencl.Platform) -> Callable[[str, Case, list[Any]], Runner]:
    """What runs a case on an OpenCL platform."""

    def runner(name: str, case: Case, arguments: list[Any]) -> Runner:
        grid, block = (
            (size,) if isinstance(size, int) else tuple(size) for size in (case.grid, case.block)
        )
        return platform.kernel(name, grid, block, arguments)

    return runner


def copies(case: Case) -> list[Any]:
    """Arguments with arrays of their own."""
    return [a.copy() if isinstance(a, np.ndarray) else a for a in case.arguments]


def measure(
    name: str,
    case: Case,
    module: Any,
    others: dict[str, Callable[[str, Case, list[Any]], Runner]],
) -> list[float]:
    """Compare results, then times: how many times as long each of the others takes."""
    device = gpu.Device("cpu")
    mine = [gpu.to_device(a, device) if isinstance(a, np.ndarray) else a for a in case.arguments]
    kernel = module[name]

    def ours() -> None:
        kernel.launch(case.grid, case.block, *mine)
        device.synchronize()

    ours()
    runners = [ours]
    held = []  # arrays that runners know by address only
    for label, make in others.items():
        theirs = copies(case)
        held.append(theirs)
        runners.append(make(name, case, theirs))
        runners[-1]()
        for index in case.outputs:
            got, wanted = case.combine(mine[index].to_host()), case.combine(theirs[index])
            if case.exact:
                assert (got == wanted).all(), (name, label)
            else:
                assert np.allclose(got, wanted, rtol=2e-3, atol=2e-3), (name, label)
    rounds = []
    for _ in range(ROUNDS):
        times = []
        for runner in runners:
            start = time.process_time()
            repeats = 0
            while time.process_time() - start < 0.02 or not repeats:
                runner()
                repeats += 1
            times.append((time.process_time() - start) / repeats)
        rounds.append(times)
    seconds, *theirs_s = (statistics.median(column) for column in zip(*rounds))
    ratios = [s / seconds for s in theirs_s]
    shown = "".join(f"   {s * 1e3:9.3f} ms {r:6.2f}" for s, r in zip(theirs_s, ratios))
    print(f"{name:14}{seconds * 1e3:9.3f} ms{shown}", flush=True)
    return ratios


def main() -> None:
    """Measure what the command line names, by default all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--opencl", action="store_true")
    parser.add_argument("kernels", nargs="*")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    module = gpu.Device("cpu").load(read("kernels.ptx"))
    with tempfile.TemporaryDirectory() as directory:
        others = {"C": in_c(compile_reference(directory))}
    if options.opencl:
        found = opencl.platforms()
        if not found:
            print("no OpenCL platform: is a loader installed, and a runtime for CPUs?")
        for platform in found:
            platform.build(read("kernels.cl"))
            others[platform.name] = in_opencl(platform)
    print(f"ours, then: {'; '.join(others)}")
    table = [
        measure(name, case, module, others)
        for name, case in cases().items()
        if not options.kernels or name in options.kernels
    ]
    for label, ratios in zip(others, zip(*table)):
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"against {label}: geometric mean {mean:.2f}, least {min(ratios):.2f}")


def read(name: str) -> str:
    """A file beside this one."""
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read()


if __name__ == "__main__":
    main()
