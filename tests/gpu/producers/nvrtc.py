"""A kernel compiled at run time by NVRTC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cuda.bindings import nvrtc

SOURCE = """
template <typename T> struct Pair { T low, high; };

template <typename T> __device__ Pair<T> ordered(T a, T b) {
  return a < b ? Pair<T>{a, b} : Pair<T>{b, a};
}

extern "C" __global__ void minmax(const int *in, Pair<int> *out, int n) {
  extern __shared__ int part[];
  int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  part[t] = in[i < n ? i : n - 1];
  part[t + blockDim.x] = part[t];
  for (int step = blockDim.x / 2; step; step /= 2) {
    __syncthreads();
    if (t < step) {
      part[t] = ordered(part[t], part[t + step]).low;
      part[t + blockDim.x] = ordered(part[t + blockDim.x], part[t + blockDim.x + step]).high;
    }
  }
  if (t == 0) {
    atomicMin(&out->low, part[0]);
    atomicMax(&out->high, part[blockDim.x]);
  }
}
"""


def _checked(result: tuple[Any, ...]) -> Any:
    assert not int(result[0]), result[0]
    return result[1] if len(result) > 1 else None


def write() -> None:
    """Compile it."""
    program = _checked(nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"minmax.cu", 0, [], []))
    _checked(nvrtc.nvrtcCompileProgram(program, 1, [b"-arch=compute_90"]))
    text = b" " * _checked(nvrtc.nvrtcGetPTXSize(program))
    _checked(nvrtc.nvrtcGetPTX(program, text))
    path = Path(__file__).with_name("nvrtc_minmax.ptx")
    path.write_text(text.decode().rstrip("\0"))


if __name__ == "__main__":
    write()
