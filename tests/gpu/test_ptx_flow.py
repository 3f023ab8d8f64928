"""Random kernels with barriers and divergent flow: warps as vectors against single threads."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from tests.gpu.cpu_kernels import launch, program  # noqa: E402
from tests.gpu.random_kernels import RESULTS, WORDS, random_kernel  # noqa: E402

BLOCKS = ((64, 1), (96, 1), (32, 4), (16, 8), (50, 1), (8, 8), (33, 2), (128, 1))
GRID = 3


@pytest.mark.parametrize("seed", range(32))
def test_random_kernel(seed: int) -> None:
    block = BLOCKS[seed % len(BLOCKS)]
    text = random_kernel(seed, block)
    data = np.random.default_rng(seed).integers(0, 1 << 32, WORDS).astype("u4")
    results = []
    for threads in (True, False):
        out = np.zeros(GRID * block[0] * block[1] * RESULTS, "u4")
        launch(program(text, threads=threads), "run", GRID, block, out, data, seed % 5)
        results.append(out)
    assert np.nonzero(results[0] != results[1])[0].tolist() == []
