"""Matrices of a warp on the cpu: mma, wmma, ldmatrix and the like; atomic operations on vectors.

Integers must be what NumPy and a GPU say. Sums of floats may differ by their rounding: from the
exact product, and from what an H200 gave (vectors/matrices.json).
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Final

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from anyarch import gpu  # noqa: E402
from tests.gpu import matrices  # noqa: E402
from tests.gpu.cpu_kernels import device, launch, program  # noqa: E402

FORMS: Final = matrices.forms()
RECORD: Final = json.loads(matrices.VECTORS.read_text())["forms"]
# The rounding of one operation in the type of the sum, and how many it adds up to.
ROUNDINGS: Final = {"f16": 2.0**-11, "f32": 2.0**-24, "f64": 2.0**-53, "s32": 0.0}


def bound(form: matrices.Form) -> Any:
    """How far from the exact product each element may lie."""
    if ROUNDINGS[form.d] == 0:
        return np.zeros((form.m, form.n))
    size = matrices.product(form, magnitudes=True)
    return ROUNDINGS[form.d] * size + (form.k + 1) * min(ROUNDINGS[form.d], 2.0**-24) * size


def test_every_form_is_recorded() -> None:
    assert list(RECORD) == list(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_a_product(name: str) -> None:
    form = FORMS[name]
    data, values = matrices.run(gpu.Device("cpu"), form)
    wanted, limit = matrices.product(form), bound(form)
    assert (np.abs(values - wanted) <= limit).all()
    recorded = zlib.decompress(base64.b64decode(RECORD[name]))
    if form.d == "s32":
        assert data == recorded
        return
    code = {"f16": "f2", "f32": "f4", "f64": "f8"}[form.d]
    ours, theirs = (np.frombuffer(d, code).astype("f8") for d in (data, recorded))
    assert (np.abs(ours - theirs) <= 8 * limit.max()).all()


@pytest.mark.parametrize(
    "name",
    [
        "mma.m16n8k16.row.col.f32.f16.f16.f32",
        "mma.m16n8k32.row.col.s32.s8.u8.s32",
        "mma.m16n8k8.row.col.f64.f64.f64.f64",
        "quads.m8n8k4.col.row.f32.f16.f16.f16",
        "sparse.m16n8k32.row.col.f32.f16.f16.f32.1",
        "wmma.m16n16k16.col.row.f32.f16.f16.f32",
        "wmma.m8n8k32.row.col.s32.s4.s4.s32",
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_threads_that_meet(name: str, check: bool) -> None:
    """Each thread a flow of its own, as in kernels whose warps come apart, and in checked ones."""
    form = FORMS[name]
    expected, _ = matrices.run(gpu.Device("cpu"), form)
    home = gpu.Device("cpu", check=check)
    load = home._driver.load
    home._driver.load = lambda image, options: load(image, {**options, "threads": True})  # type: ignore[method-assign]
    try:
        assert matrices.run(home, form)[0] == expected
    finally:
        home._driver.load = load  # type: ignore[method-assign]


HEAD: Final = ".version 8.4\n.target sm_90\n.address_size 64\n"
MOVES: Final = """
.visible .entry k(.param .u64 p, .param .u64 q) {{
  .reg .b64 %d<6>; .reg .b32 %r<12>; .shared .align 16 .b8 s[1024];
  ld.param.u64 %d0, [p]; ld.param.u64 %d1, [q];
  mov.u32 %r0, %laneid;
  mad.wide.u32 %d2, %r0, 16, %d0; mad.wide.u32 %d3, %r0, 4, %d1;
  mov.u32 %r1, s; mad.lo.u32 %r2, %r0, 16, %r1;
  ld.global.v4.u32 {{%r3, %r4, %r5, %r6}}, [%d2];
  st.shared.v4.u32 [%r2], {{%r3, %r4, %r5, %r6}};
  bar.warp.sync -1;
  {body}
  ret;
}}
"""
TAKE: Final = """
  st.global.u32 [%d3], %r7; st.global.u32 [%d3+128], %r8;
  st.global.u32 [%d3+256], %r9; st.global.u32 [%d3+384], %r10;"""
BACK: Final = """
  bar.warp.sync -1; mad.wide.u32 %d3, %r0, 16, %d1;
  ld.shared.v4.u32 {%r3, %r4, %r5, %r6}, [%r2];
  st.global.v4.u32 [%d3], {%r3, %r4, %r5, %r6};"""


def _moved(body: str, given: Any, threads: bool) -> Any:
    out = np.zeros((4, 8, 8), "u2")
    launch(program(HEAD + MOVES.format(body=body), threads=threads), "k", 1, 32, given, out)
    return out


@pytest.mark.parametrize("threads", [False, True])
def test_rows_of_matrices(threads: bool) -> None:
    given = np.random.default_rng(3).integers(0, 1 << 16, (4, 8, 8)).astype("u2")
    load = "ldmatrix.sync.aligned.m8n8{}.shared.b16 {}, [{}];"
    four, two = "{%r7, %r8, %r9, %r10}", "{%r7, %r8}"
    found = _moved(load.format(".x4", four, "%r2") + TAKE, given, threads)
    assert (found == given).all()
    found = _moved(load.format(".x4.trans", four, "%r2") + TAKE, given, threads)
    assert (found == given.transpose(0, 2, 1)).all()
    # Two matrices, the second first; lanes above 15 bring no address that counts.
    body = "xor.b32 %r11, %r2, 128; mov.u32 %r9, 0; mov.u32 %r10, 0;\n"
    found = _moved(body + load.format(".x2.trans", two, "%r11") + TAKE, given, threads)
    assert (found[:2] == given[1::-1].transpose(0, 2, 1)).all()
    body = load.format(".x4", four, "%r2") + "bar.warp.sync -1;\n"
    body += f"stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%r2], {four};" + BACK
    assert (_moved(body, given, threads) == given.transpose(0, 2, 1)).all()
    body = load.format(".x4", four, "%r2") + "bar.warp.sync -1;\n"
    body += f"stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r2], {two};" + BACK
    assert (_moved(body, given, threads) == given).all()
    body = load.format(".x4", four, "%r2") + "movmatrix.sync.aligned.m8n8.trans.b16 %r8, %r8;"
    expected = given.copy()
    expected[1] = expected[1].T
    assert (_moved(body + TAKE, given, threads) == expected).all()


ATOMICS: Final = """
.visible .entry k(.param .u64 p, .param .u64 q) {{
  .reg .b64 %d<4>; .reg .b32 %r<8>; .reg .f32 %f<8>; .reg .b16 %h<8>; .reg .b128 %b<4>;
  ld.param.u64 %d0, [p]; ld.param.u64 %d1, [q]; mov.u32 %r0, %tid.x;
  {body}
  ret;
}}
"""


@pytest.mark.parametrize("threads", [False, True])
def test_atomic_operations_on_vectors(threads: bool) -> None:
    def run(body: str, p: Any, q: Any) -> None:
        loaded = program(HEAD + ATOMICS.format(body=body), threads=threads)
        launch(loaded, "k", 4, 96, p, q)

    p, q = np.zeros(4, "f4"), np.zeros((96, 4), "f4")
    body = """
      cvt.rn.f32.u32 %f0, %r0; mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000; neg.f32 %f3, %f1;
      mad.wide.u32 %d1, %r0, 16, %d1;
      atom.global.v4.f32.add {%f4, %f5, %f6, %f7}, [%d0], {%f0, %f1, %f2, %f3};
      st.global.v4.f32 [%d1], {%f4, %f5, %f6, %f7};"""
    run(body, p, q)
    assert p.tolist() == [4 * 95 * 48, 4 * 96, 8 * 96, -4 * 96]
    assert (q[:, 2] == 2 * q[:, 1]).all()
    assert (q[:, 3] == -q[:, 1]).all()
    p = np.zeros(4, "f2")
    body = """mov.b16 %h0, 0x3C00; mov.b16 %h1, 0x4000;
      red.global.add.noftz.v4.f16 [%d0], {%h0, %h1, %h1, %h0};"""
    run(body, p, p)
    assert p.tolist() == [384, 768, 768, 384]
    p = np.zeros(4, "u2")
    body = """mov.b32 %r1, 0x3F804000; mov.b32 %r2, 0x40003F80;
      red.global.add.noftz.v2.bf16x2 [%d0], {%r1, %r2};"""
    run(body, p, p)
    assert (p.astype("u4") << 16).view("f4").tolist() == [512, 256, 256, 512]


@pytest.mark.parametrize("threads", [False, True])
def test_atomic_exchange_of_128_bits(threads: bool) -> None:
    body = """
      cvt.u64.u32 %d2, %r0; add.u64 %d3, %d2, 1000; mov.b128 %b0, {%d2, %d3};
      atom.global.exch.b128 %b1, [%d0], %b0;
      mov.b128 {%d2, %d3}, %b1; sub.u64 %d2, %d3, %d2;
      mov.u32 %r1, %ctaid.x; mad.lo.u32 %r1, %r1, 96, %r0; mad.wide.u32 %d1, %r1, 8, %d1;
      st.global.u64 [%d1], %d2;"""
    whole = np.zeros(4, "u8")
    start = (-whole.ctypes.data // 8) % 2  # 16 bytes are aligned to their size
    p, q = whole[start : start + 2], np.zeros(4 * 96, "u8")
    p[:] = 5, 1005
    launch(program(HEAD + ATOMICS.format(body=body), threads=threads), "k", 4, 96, p, q)
    assert (q == 1000).all()  # no half of one value came with half of another
    assert p[1] - p[0] == 1000


def test_what_is_not_there_says_so() -> None:
    text = HEAD + ".visible .entry k() {{ .reg .b32 %r<8>; .reg .f32 %f<8>;\n{};\nret; }}"
    operands = "{%f0,%f1,%f2,%f3}, {%r0,%r1}, {%r2,%r3}, {%f0,%f1,%f2,%f3}, %r4, 0"
    instruction = f"mma.sp.sync.aligned.m16n8k64.row.col.f32.f16.f16.f32 {operands}"
    with pytest.raises(gpu.PtxError, match=r"line 5.*m16n8k64.*is not supported"):
        program(text.format(instruction)).kernel("k")
    assert device().time_limit
