"""The cpu's checked mode: each mistake is found at its block, thread, line and address."""

from __future__ import annotations

import os
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from anyarch import gpu  # noqa: E402

# Registers: %r0 thread, %r2 number in the grid, %r3 shared memory, %r4 the thread's word in it;
# %d2 and %d3 the thread's words of p and q.
TEXT = """.version 8.0
.target sm_90
.address_size 64
.file 1 "k.cu"
.global .align 4 .u32 table[4];
.visible .entry k(.param .u64 p, .param .u64 q) {{
.reg .b64 %d<8>; .reg .b32 %r<16>; .reg .pred %p<4>;
.shared .align 16 .b8 sm[256]; .local .align 8 .b8 loc[32];
mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mad.lo.u32 %r2, %r1, %ntid.x, %r0;
ld.param.u64 %d0, [p]; ld.param.u64 %d1, [q];
mad.wide.u32 %d2, %r2, 4, %d0; mad.wide.u32 %d3, %r2, 4, %d1;
mov.u32 %r3, sm; mad.lo.u32 %r4, %r0, 4, %r3;
.loc 1 7 0
{body}
ret;
}}
"""
FIRST = 14  # line of the body
DEVICE = gpu.Device("cpu", check=True)
DEVICE._driver.time_limit = 20.0  # type: ignore[attr-defined]  # a kernel that hangs fails


def _run(body: str, grid: int = 2, p: Any = None, q: Any = None) -> Any:
    """Run with arrays of 128 words, in blocks of 64: q afterwards."""
    p = gpu.to_device(np.arange(128, dtype="u4"), DEVICE) if p is None else p
    q = gpu.to_device(np.zeros(128, "u4"), DEVICE) if q is None else q
    DEVICE.load(TEXT.format(body=body))["k"].launch(grid, 64, p, q)
    DEVICE.synchronize()
    return q.to_host()


def _finds(kind: str, body: str, line: int, thread: int, **more: Any) -> gpu.CheckError:
    block = more.pop("block", 0)
    with pytest.raises(gpu.CheckError) as caught:
        _run(body, **more)
    error = caught.value
    assert error.kind == kind
    assert error.fault is not None
    assert error.fault.line == FIRST + line
    assert error.fault.block == (block, 0, 0)
    assert error.fault.thread == (thread, 0, 0)
    assert error.usable
    return error


def _other(error: gpu.CheckError) -> tuple[int, int]:
    assert error.other is not None
    return error.other.threads[0], error.other.line - FIRST


COPY = "ld.global.u32 %r5, [%d2];\nst.global.u32 [%d3], %r5;"


def test_a_kernel_without_mistakes() -> None:
    assert (_run(COPY) == np.arange(128)).all()


def test_out_of_bounds() -> None:
    short = gpu.to_device(np.zeros(100, "u4"), DEVICE)
    error = _finds("out of bounds", COPY, 1, 36, block=1, q=short)
    assert (error.address, error.nbytes) == (short.pointer + 400, 4)
    assert error.fault is not None
    assert (error.fault.file, error.fault.source_line) == ("k.cu", 7)
    assert "it accesses 4 bytes at" in str(error)
    assert "0 bytes past the end of 400 bytes" in str(error)
    read = "ld.global.u32 %r5, [%d2];"
    _finds("out of bounds", read, 0, 0, block=2, grid=3)
    body = "mov.u64 %d4, table;\nld.global.u32 %r5, [%d4+12];\nld.global.u32 %r5, [%d4+16];"
    _finds("out of bounds", body, 2, 0)
    _finds("out of bounds", "st.shared.u32 [%r4+8], %r0;", 0, 62)
    body = "mov.u64 %d4, loc; mad.wide.u32 %d4, %r0, 4, %d4;\nst.local.u32 [%d4], %r0;"
    _finds("out of bounds", body, 1, 8)


def test_memory_that_was_freed() -> None:
    array = DEVICE.zeros(1 << 24, "u1")  # so much that nothing new comes to lie at its start
    pointer, q = array.pointer, gpu.to_device(np.zeros(128, "u4"), DEVICE)
    del array
    _finds("out of bounds", "ld.global.u32 %r5, [%d2];", 0, 0, p=pointer, q=q)


def test_memory_of_others() -> None:
    assert (_run(COPY, p=np.full(128, 7, "u4")) == 7).all()


def test_misaligned() -> None:
    error = _finds("misaligned", "ld.global.u32 %r5, [%d2+2];", 0, 0)
    assert error.address % 4 == 2
    _finds("misaligned", "ld.global.v2.u32 {%r5, %r6}, [%d2];", 0, 1)


def test_uninitialised() -> None:
    empty = DEVICE.empty(128, "u4")
    error = _finds("uninitialised", COPY, 0, 0, p=empty)
    assert error.address == empty.pointer
    part = DEVICE.empty(128, "u4")
    part[:70].copy_from(np.zeros(70, "u4"))
    _finds("uninitialised", COPY, 0, 6, block=1, p=part)
    _run("st.global.u32 [%d2], %r0;\n" + COPY, p=empty)
    _run(COPY, p=empty)
    copied = DEVICE.empty(128, "u4")
    copied.copy_from(part)
    _finds("uninitialised", COPY, 0, 6, block=1, p=copied)
    _finds("uninitialised", "ld.shared.u32 %r5, [%r4];", 0, 0)
    body = "st.local.u32 [loc+4], %r0;\nld.local.u32 %r5, [loc+4];\nld.local.u32 %r5, [loc];"
    _finds("uninitialised", body, 2, 0)
    view = DEVICE.empty(128, "u4")
    np.asarray(view.view)[:] = 3  # what the host can write counts as written
    assert (_run(COPY, p=view) == 3).all()


PUT = "st.shared.u32 [%r4], %r0;\n"
TAKE = "ld.shared.u32 %r7, [%r6];\nst.global.u32 [%d3], %r7;"


def test_races_in_shared_memory() -> None:
    body = PUT + "bar.sync 0;\nxor.b32 %r6, %r4, 4;\nld.shared.u32 %r7, [%r6];\n" + PUT
    error = _finds("race", body, 3, 1)
    assert _other(error) == (0, 4)
    assert "which thread (0, 0, 0) has written (PTX line 18" in str(error)
    error = _finds("race", "st.shared.u32 [%r3], %r0;", 0, 1)
    assert _other(error) == (0, 0)
    body = "st.shared.u32 [%r4], 0; bar.sync 0;\nld.shared.u32 %r5, [%r3];\n"
    body += "setp.eq.u32 %p0, %r0, 0; bar.warp.sync -1;\n@!%p0 bra done;\n"
    error = _finds("race", body + "st.shared.u32 [%r3], 5;\ndone:", 4, 0)
    assert _other(error)[1] == 1
    body = "mov.u32 %r5, 0; st.shared.u32 [%r3], %r5; bar.sync 0;\n"
    body += "atom.shared.add.u32 %r6, [%r3], 1;\nld.shared.u32 %r7, [%r3];"
    _finds("race", body, 1, 0)


def test_what_is_no_race() -> None:
    wanted = np.arange(128) % 64 ^ 1
    for wait in ("bar.sync 0;", "bar.warp.sync -1;", "barrier.sync 3, 64;"):
        body = PUT + f"{wait}\nxor.b32 %r6, %r4, 4;\n" + TAKE
        assert (_run(body) == wanted).all()
    assert not _run("st.shared.u32 [%r3], 5;").any()  # all write the same
    body = "mov.u32 %r5, 0; st.shared.u32 [%r3], %r5; bar.sync 0;\n"
    body += "red.shared.add.u32 [%r3], 1; bar.sync 0;\n"
    body += "ld.shared.u32 %r7, [%r3]; st.global.u32 [%d3], %r7;"
    assert (_run(body) == 64).all()
    # One warp produces, the other waits for it.
    body = "setp.lt.u32 %p0, %r0, 32;\n@%p0 bra first;\nbar.sync 1, 64;\n"
    body += "add.u32 %r6, %r4, -128;\n" + TAKE + "\nbra done;\n"
    body += "first: " + PUT + "bar.arrive 1, 64;\ndone:"
    assert (_run(body).reshape(2, 64)[:, 32:] == np.arange(32)).all()


def test_barriers() -> None:
    error = _finds("barrier", "setp.lt.u32 %p0, %r0, 32;\n@%p0 bar.sync 0;", 1, 0)
    assert _other(error) == (32, -FIRST)
    body = "setp.lt.u32 %p0, %r0, 32;\n@%p0 bra x;\nbar.sync 0; bra y;\nx: bar.sync {};\ny:"
    error = _finds("barrier", body.format(1), 2, 63)
    assert _other(error) == (0, 3)
    _run(body.format(0))


def test_kernels_of_nvcc() -> None:
    path = os.path.join(os.path.dirname(__file__), "kernels.ptx")
    module = DEVICE.load(path)
    x = gpu.to_device(np.ones(1000, "f4"), DEVICE)
    y = gpu.to_device(np.ones(1000, "f4"), DEVICE)
    module["saxpy"].launch(4, 256, 2.0, x, y, 1000)
    assert (y.to_host() == 3).all()
    with pytest.raises(gpu.CheckError, match="out of bounds") as caught:
        module["saxpy"].launch(4, 256, 2.0, x, y, 1001)
        DEVICE.synchronize()
    assert caught.value.fault is not None
    assert (caught.value.fault.block, caught.value.fault.thread) == ((3, 0, 0), (232, 0, 0))


WGMMA = """.version 8.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u32 words, .param .u64 away) {
.reg .b32 %r<8>; .reg .b64 %d<4>; .reg .f32 %f<4>; .reg .pred %p;
.shared .align 128 .b8 sm[2304];
mov.u32 %r0, %tid.x; mov.u32 %r1, sm; ld.param.u32 %r3, [words]; ld.param.u64 %d2, [away];
mad.lo.u32 %r2, %r0, 4, %r1;
more: setp.ge.u32 %p, %r0, %r3; @%p bra done;
st.shared.u32 [%r2], 0x3C003C00; add.u32 %r2, %r2, 512; add.u32 %r0, %r0, 128; bra more;
done: bar.sync 0;
cvt.u64.u32 %d0, %r1; shr.u64 %d0, %d0, 4; or.b64 %d0, %d0, 0x0000001000080000;
add.u64 %d1, %d0, 128; add.u64 %d1, %d1, %d2;
wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f0, %f1, %f2, %f3}, %d0, %d1, 0, 1, 1, 0, 0;
wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
ret;
}
"""


def test_operands_of_wgmma() -> None:
    kernel = DEVICE.load(WGMMA)["k"]
    kernel.launch(1, 128, 576, 0)  # 64 × 16 elements, and 16 × 8
    DEVICE.synchronize()
    for words, away, kind in ((570, 0, "uninitialised"), (576, 16, "out of bounds")):
        kernel.launch(1, 128, words, away)
        with pytest.raises(gpu.CheckError, match="wgmma") as caught:
            DEVICE.synchronize()
        assert caught.value.kind == kind
        assert caught.value.fault is not None
        assert caught.value.fault.line == 15
