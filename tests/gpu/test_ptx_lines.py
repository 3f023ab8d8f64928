"""What is said of a kernel that fails on the cpu: block, warp, PTX line, line of the source."""

from __future__ import annotations

import os
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from anyarch.gpu.cpu.compiler import code_digest, compile_kernel, compile_lines  # noqa: E402
from anyarch.gpu.cpu.lines import Lines  # noqa: E402
from anyarch.gpu.errors import KernelError  # noqa: E402
from tests.gpu.cpu_kernels import launch, program  # noqa: E402

TEXT = """.version 8.0
.target sm_90
.address_size 64
.file 1 "dir/k.cu"
.func (.reg .b32 %r) deep(.reg .b64 %a) {
  .loc 1 70 3
  ld.global.u32 %r, [%a];
  .loc 1 71 3
  ret;
}
.visible .entry adds(.param .u64 p, .param .u32 n) {
  .reg .b64 %d<4>; .reg .b32 %r<8>; .reg .pred %p;
  .loc 1 10 0
  ld.param.u64 %d0, [p]; ld.param.u32 %r5, [n];
  mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mad.lo.u32 %r1, %r2, 64, %r1;
  mad.wide.u32 %d1, %r1, 4, %d0;
  .loc 1 12 3
  ld.global.u32 %r4, [%d1];
  .loc 1 13 3
  add.u32 %r4, %r4, 1;
  st.global.u32 [%d1], %r4;
  setp.eq.u32 %p, %r1, %r5;
  @!%p bra done;
  .loc 1 20 5
  trap;
done: ret;
}
.visible .entry calls(.param .u64 p) {
  .reg .b64 %d; .reg .b32 %r;
  ld.param.u64 %d, [p];
  .loc 1 30 0
  call (%r), deep, (%d);
  st.global.u32 [%d+4], %r;
  ret;
}
.visible .entry sums(.param .u64 p) {
  .reg .b64 %d; .reg .b32 %r;
  ld.param.u64 %d, [p]; mov.u32 %r, %tid.x;
  red.global.add.u32 [%d], %r;
  ret;
}
"""


def _fails(name: str, *arguments: Any) -> KernelError:
    with pytest.raises(KernelError) as caught:
        launch(program(TEXT), name, 4, 64, *arguments)
    return caught.value


def test_a_load_that_is_part_of_the_addition_after_it() -> None:
    error = _fails("adds", 4096, 0)
    fault = error.fault
    assert fault is not None
    assert (fault.line, fault.file, fault.source_line) == (18, "dir/k.cu", 12)
    assert fault.instruction == "ld.global.u32 %r4, [%d1]"
    assert (fault.block, fault.threads) == ((0, 0, 0), (0, 31))
    assert "warp 0 (threads 0 to 31), PTX line 18, dir/k.cu:12: 'ld.global" in str(error)


def test_trap() -> None:
    fault = _fails("adds", np.zeros(256, "u4"), 64 + 33).fault
    assert fault is not None
    assert (fault.line, fault.source_line, fault.instruction) == (25, 20, "trap")
    assert (fault.block, fault.threads) == ((1, 0, 0), (32, 63))


def test_a_function_that_became_part_of_its_caller() -> None:
    fault = _fails("calls", 4096).fault
    assert fault is not None
    assert (fault.line, fault.source_line) == (7, 70)


def test_without_loc() -> None:
    fault = _fails("sums", 4096).fault
    assert fault is not None
    assert (fault.line, fault.file, fault.source_line) == (39, "", 0)


def test_accesses_that_share_their_code() -> None:
    """A kernel with many accesses of which nothing is known."""
    head = (
        TEXT[: TEXT.index(".func")]
        + """.visible .entry k(.param .u64 p, .param .u64 q) {
  .reg .b64 %d<4>; .reg .b32 %r<8>;
  ld.param.u64 %d0, [p]; ld.param.u64 %d2, [q]; mov.u32 %r1, %tid.x;
  mul.wide.u32 %d1, %r1, 4; add.u64 %d0, %d0, %d1;
"""
    )
    step = """  ld.global.u32 %r1, [%d0];   mul.wide.s32 %d1, %r1, 4;   add.u64 %d3, %d2, %d1;
  ld.global.u32 %r2, [%d3+4];   ld.global.u32 %r3, [%d3];
  add.u32 %r2, %r2, %r3;   st.global.u32 [%d3+8], %r2;
"""
    text = head + 20 * step + "  ret;\n}\n"
    p, q = np.arange(64, dtype="i4")[::-1].copy(), np.zeros(80, "i4")
    launch(program(text), "k", 1, 64, p, q)
    assert not q.any()
    first = head.count("\n") + 1
    for number, (old, line) in enumerate(
        (("[%d3+4]", 1), ("ld.global.u32 %r3, [%d3]", 1), ("[%d3+8]", 2), ("[%d0]", 0))
    ):
        at = 7 + number
        new = old.replace("%d3", "%d1").replace("%d0", "%d1")
        steps = [step] * 20
        steps[at] = step.replace(old, new)
        p[:] = 1024  # times four is no address
        with pytest.raises(KernelError) as caught:
            launch(program(head + "".join(steps) + "  ret;\n}\n"), "k", 1, 64, p, np.zeros(1 << 21))
        assert caught.value.fault is not None
        assert caught.value.fault.line == first + 3 * at + line


def test_debug_information_changes_no_code() -> None:
    path = os.path.join(os.path.dirname(__file__), "kernels.ptx")
    with open(path, encoding="utf-8") as file:
        loaded = program(file.read())
    for name in loaded.kernels():
        kernel, _ = loaded.kernel(name)
        code = compile_kernel(kernel._text((40, 1, 1))).code
        lines = Lines()
        digest, rows = compile_lines(kernel._text((40, 1, 1), lines))
        assert digest == code_digest(code)
        assert {line for _, line in rows} - {0} <= set(range(len(lines.instructions) + 1))
        assert rows
