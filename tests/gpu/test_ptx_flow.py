"""Random kernels with barriers and divergent flow: warps as vectors against single threads."""

from __future__ import annotations

import operator

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from anyarch.gpu.errors import KernelError  # noqa: E402
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


COMPARE = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}
LIMITS = (0, 1, 15, 31, 32, 33, 40, 49, 63, 64, 99)


@pytest.mark.parametrize("size", [7, 32, 33, 50, 64, 100, 128])
@pytest.mark.parametrize("type_", ["s32", "u32"])
def test_threads_that_a_comparison_leaves(size: int, type_: str) -> None:
    cases = [(name, limit) for name in COMPARE for limit in LIMITS]
    lines = []
    for n, (name, limit) in enumerate(cases):
        lines += [
            f"setp.{name}.{type_} %p{n}, %r0, {limit};",
            f"@!%p{n} bra L{n};",
            f"mad.wide.u32 %d1, %r0, {4 * len(cases)}, %d0;",
            f"st.global.u32 [%d1+{4 * n}], 1;",
            f"L{n}:",
        ]
    text = (
        ".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry k(.param .u64 out) {\n"
        ".reg .pred %p<99>; .reg .b32 %r<1>; .reg .b64 %d<2>;\n"
        "ld.param.u64 %d0, [out]; mov.u32 %r0, %tid.x;\n" + "\n".join(lines) + "\nret; }"
    )
    out = np.zeros((size, len(cases)), "u4")
    launch(program(text), "k", 1, size, out)
    wanted = [[COMPARE[name](t, limit) for name, limit in cases] for t in range(size)]
    assert (out == np.array(wanted)).all()


def test_places_of_lanes_that_do_not_load_may_be_nowhere() -> None:
    text = """.version 8.0
    .target sm_75
    .address_size 64
    .visible .entry k(.param .u64 out, .param .u64 in) {
      .reg .pred %p; .reg .b32 %r<5>; .reg .b64 %d<5>;
      ld.param.u64 %d0, [out]; ld.param.u64 %d1, [in]; mov.u32 %r0, %tid.x;
      setp.ne.u32 %p, %r0, 35; selp.b32 %r1, 0x70000000, 5, %p; add.u32 %r1, %r1, %r0;
      mul.wide.u32 %d2, %r1, 4; add.u64 %d3, %d1, %d2;
      @%p bra end;
      ld.global.u32 %r2, [%d3]; ld.global.u32 %r3, [%d3+4];
      sub.u32 %r4, %r3, %r2; st.global.u32 [%d0], %r4; st.global.u32 [%d0+4], %r2;
    end: ret;
    }"""
    out, data = np.zeros(2, "u4"), np.arange(100, dtype="u4") ** 2
    launch(program(text), "k", 1, 64, out, data)
    assert out.tolist() == [41**2 - 40**2, 40**2]


STACKS = """.version 8.0
.target sm_75
.address_size 64
.func (.param .b32 r) sum(.param .b32 n) {
  .reg .b32 %r<8>; .reg .b64 %d<6>; .reg .pred %p;
  ld.param.u32 %r0, [n];
  stacksave.u64 %d4;
  mul.wide.u32 %d0, %r0, 4;   add.u64 %d0, %d0, 4;
  alloca.u64 %d1, %d0, 16;
  mov.u32 %r1, 0; mov.u64 %d2, %d1;
fill: setp.ge.u32 %p, %r1, %r0; @%p bra filled;
  st.local.u32 [%d2], %r1; add.u64 %d2, %d2, 4; add.u32 %r1, %r1, 1; bra fill;
filled: mov.u32 %r1, 0; mov.u32 %r2, 0; mov.u64 %d2, %d1;
more: setp.ge.u32 %p, %r1, %r0; @%p bra done;
  ld.local.u32 %r3, [%d2]; add.u32 %r2, %r2, %r3; add.u64 %d2, %d2, 4; add.u32 %r1, %r1, 1;
  bra more;
done: stackrestore.u64 %d4; alloca.u64 %d5, 64; sub.u64 %d5, %d5, %d1;
  cvt.u32.u64 %r4, %d5; add.u32 %r2, %r2, %r4;
  st.param.u32 [r], %r2; ret;
}
.visible .entry k(.param .u64 out) {
  .reg .b32 %r<4>; .reg .b64 %d<3>; .param .b32 a; .param .b32 b;
  mov.u32 %r0, %tid.x; st.param.b32 [a], %r0; call (b), sum, (a); ld.param.b32 %r1, [b];
  ld.param.u64 %d0, [out]; mul.wide.u32 %d1, %r0, 4; add.u64 %d0, %d0, %d1;
  st.global.u32 [%d0], %r1; ret;
}
.visible .entry full(.param .u32 n) { .reg .b32 %r<2>; ld.param.u32 %r0, [n];
  alloca.u32 %r1, %r0; st.local.u32 [%r1], %r0; ret; }
"""


@pytest.mark.parametrize("threads", [False, True])
def test_memory_from_the_stack(threads: bool) -> None:
    loaded = program(STACKS, threads=threads)
    out = np.zeros(100, "i4")
    launch(loaded, "k", 1, 100, out)  # each thread takes as much as its number says
    assert out.tolist() == [n * (n - 1) // 2 for n in range(100)]
    launch(loaded, "full", 1, 32, 16000)
    with pytest.raises(KernelError, match=r"'alloca\.u32 %r1, %r0'"):
        launch(loaded, "full", 1, 32, 17000)
