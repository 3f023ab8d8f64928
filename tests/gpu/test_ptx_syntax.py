"""Less usual PTX, as other programs make it."""

from __future__ import annotations

from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from tests.gpu.cpu_kernels import launch, program  # noqa: E402

HEAD = '.version 8.4\n.target sm_90\n.address_size 64\n.file 1 "k.cu"\n'


def _run(body: str, functions: str = "", threads: bool = False) -> list[int]:
    """Words that lanes of a warp leave at `out`, which is their own; %r0 is the lane."""
    text = f"""{HEAD}{functions}
    .visible .entry k(.param .u64 p) {{
    .reg .b64 out, %d<4>; .reg .b32 %r<8>; .reg .pred %p<2>; .reg .b16 %h<8>;
    ld.param.u64 out, [p]; mov.u32 %r0, %tid.x; mad.wide.u32 out, %r0, 4, out;
    {body}
    ret; }}"""
    out = np.zeros(32, "u4")
    launch(program(text, threads=threads), "k", 1, 32, out)
    found: list[int] = out.tolist()
    return found


LANES = list(range(32))


def test_a_label_after_loc() -> None:
    body = ".loc 1 8 0\nstart: add.u32 %r1, %r0, 5;\n.loc 1 9 0\nnext:\nst.global.u32 [out], %r1;"
    assert _run(body) == [n + 5 for n in LANES]


@pytest.mark.parametrize("threads", [False, True])
def test_vector_registers(threads: bool) -> None:
    function = """.func (.reg .v2 .u32 y) turned(.reg .v2 .u32 x) {
      mov.u32 y.x, x.y; mov.u32 y.y, x.x; ret; }"""
    body = """.reg .v2 .u32 a; .reg .v2 .b32 b<2>; .reg .v4 .u32 c;
      mov.u32 a.x, %r0; add.u32 a.y, %r0, 100;
      call (b1), turned, (a);
      mov.v2.b32 {a.x, a.y}, {a.y, a.x};
      mov.b64 %d0, a; mov.b64 {%r1, %r2}, %d0;
      sub.u32 %r1, %r1, b1.x; sub.u32 %r2, %r2, b1.g; add.u32 %r1, %r1, %r2;
      mov.u32 c.w, %r0; add.u32 %r1, %r1, c.a;
      st.global.u32 [out], %r1;"""
    assert _run(body, function, threads) == LANES


def test_a_space_that_the_variable_tells() -> None:
    body = """.shared .align 4 .b32 s[32]; .local .align 4 .b32 l[2];
      mov.u32 %r1, s; mad.lo.u32 %r1, %r0, 4, %r1; st.shared.u32 [%r1], %r0;
      bar.warp.sync -1;
      st.u32 [l+4], %r0; ld.u32 %r2, [s+20]; ld.u32 %r3, [l+4];
      mad.lo.u32 %r2, %r2, 100, %r3; st.global.u32 [out], %r2;"""
    assert _run(body) == [500 + n for n in LANES]


def test_a_register_and_a_number() -> None:
    assert _run("st.global.u32 [out], %r0 + 7;") == [n + 7 for n in LANES]


@pytest.mark.parametrize("threads", [False, True])
def test_predicates_as_parameters(threads: bool) -> None:
    function = """.func (.reg .pred y, .reg .u32 z) odd(.reg .u32 x, .reg .pred flip) {
      .reg .u32 t; .reg .pred q; and.b32 t, x, 1; setp.ne.u32 y, t, 0;
      xor.pred y, y, flip; add.u32 z, x, 1; ret; }"""
    body = """setp.gt.u32 %p0, %r0, 15; call (%p1, %r1), odd, (%r0, %p0);
      selp.b32 %r2, 1000, 0, %p1; add.u32 %r2, %r2, %r1; st.global.u32 [out], %r2;"""
    expected = [n + 1 + 1000 * ((n & 1) ^ (n > 15)) for n in LANES]
    assert _run(body, function, threads) == expected


def test_cache_policies() -> None:
    body = """createpolicy.fractional.L2::evict_last.b64 %d0, 1.0;
      st.global.L2::cache_hint.u32 [out], %r0, %d0;"""
    assert _run(body) == LANES


def _video(text: str, a: Any, b: Any, c: Any) -> Any:
    kernel = f"""{HEAD}.visible .entry k(.param .u64 p, .param .u64 q, .param .u64 s) {{
      .reg .b64 %d<4>; .reg .b32 %a, %b, %c, %y, %t;
      ld.param.u64 %d0, [p]; ld.param.u64 %d1, [q]; ld.param.u64 %d2, [s];
      mov.u32 %t, %tid.x; mad.wide.u32 %d0, %t, 4, %d0; mad.wide.u32 %d1, %t, 4, %d1;
      mad.wide.u32 %d2, %t, 4, %d2;
      ld.global.u32 %a, [%d0]; ld.global.u32 %b, [%d1]; ld.global.u32 %c, [%d2];
      {text};
      st.global.u32 [%d2], %y; ret; }}"""
    out = c.copy()
    launch(program(kernel), "k", 1, len(a), a, b, out)
    return out


def _clamped(value: Any, low: int, high: int) -> Any:
    return (np.clip(value, low, high) & 0xFFFFFFFF).astype("u4")


def test_scalar_video_instructions() -> None:
    rng = np.random.default_rng(9)
    a, b, c = (rng.integers(0, 1 << 32, 96).astype("u4") for _ in range(3))
    ua, ub = a.astype("i8"), b.astype("i8")
    sa, sb = a.view("i4").astype("i8"), b.view("i4").astype("i8")
    byte = a.view("i1").reshape(-1, 4)[:, 2].astype("i8")
    half = b.view("u2").reshape(-1, 2)[:, 1].astype("i8")
    word = 1 << 32
    results = {
        "vadd.s32.s32.s32.sat %y, %a, %b": _clamped(sa + sb, -(1 << 31), (1 << 31) - 1),
        "vsub.u32.u32.u32.sat %y, %a, %b": _clamped(ua - ub, 0, word - 1),
        "vadd.s32.s32.u32 %y, %a.b2, %b.h1": ((byte + half) % word).astype("u4"),
        "vabsdiff.u32.u32.u32.add %y, %a, %b, %c": (abs(ua - ub) + c).astype("u4"),
        "vmin.s32.s32.s32.max %y, %a, %b, %c": np.maximum(np.minimum(sa, sb), c.view("i4")).astype(
            "u4"
        ),
        "vmax.u32.s32.u32.sat %y.b1, %a, %b, %c": (c & 0xFFFF00FF)
        | _clamped(np.maximum(sa, ub), 0, 255) << 8,
        "vshr.u32.u32.u32.clamp %y, %a, %b": (ua >> np.minimum(ub, 32)).astype("u4"),
        "vshr.s32.s32.u32.wrap %y, %a, %b": ((sa >> (ub & 31)) % word).astype("u4"),
        "vshl.u32.u32.u32.wrap %y, %a, %b": ((ua << (ub & 31)) % word).astype("u4"),
        "vset.s32.s32.lt.add %y, %a, %b, %c": ((sa < sb) + c).astype("u4"),
    }
    for text, expected in results.items():
        assert (_video(text, a, b, c) == expected).all(), text
