"""Kernels in Numba's Python: arrays are passed as seven numbers for one dimension."""

from __future__ import annotations

from pathlib import Path

from numba import cuda, float32, int32


def block_sum(x, out):
    part = cuda.shared.array(256, float32)
    t, i = cuda.threadIdx.x, cuda.grid(1)
    part[t] = x[i] if i < x.shape[0] else 0.0
    cuda.syncthreads()
    step = 128
    while step > 0:
        if t < step:
            part[t] += part[t + step]
        cuda.syncthreads()
        step //= 2
    if t == 0:
        cuda.atomic.add(out, 0, part[0])


def shuffled(x, out):
    t = cuda.grid(1)
    value = x[t]
    for distance in (16, 8, 4, 2, 1):
        value += cuda.shfl_down_sync(0xFFFFFFFF, value, distance)
    positive = cuda.ballot_sync(0xFFFFFFFF, x[t] > 0)
    if t % 32 == 0:
        out[t // 32] = value + cuda.popc(positive) * 1000


def write() -> None:
    """Compile all."""
    for function, type_ in ((block_sum, float32), (shuffled, int32)):
        text, _ = cuda.compile_ptx(function, (type_[::1], type_[::1]), cc=(9, 0))
        Path(__file__).with_name(f"numba_{function.__name__}.ptx").write_text(text)


if __name__ == "__main__":
    write()
