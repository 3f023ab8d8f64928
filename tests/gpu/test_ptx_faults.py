"""What goes wrong on the cpu backend: bad instructions, endless kernels, Ctrl-C, fork, threads."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from anyarch import gpu  # noqa: E402
from anyarch.gpu.backend import LaunchConfig  # noqa: E402
from anyarch.gpu.cpu.launcher import Launcher  # noqa: E402
from anyarch.gpu.cpu.outline import outline_of, pack_outline, unpack_outline  # noqa: E402
from anyarch.gpu.errors import DriverError, KernelError, PtxError  # noqa: E402
from anyarch.gpu.ptx.lexer import tokenise  # noqa: E402
from tests.gpu.cpu_kernels import device, launch, program  # noqa: E402

HEAD = ".version 8.0\n.target sm_90\n.address_size 64\n"
SPIN = HEAD + ".visible .entry spin() { again: bra again; }"
COUNT = (
    HEAD
    + """
.visible .entry count(.param .u64 p) {
  .reg .b32 %r<6>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [p];
  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
  mad.lo.u32 %r4, %r1, %r2, %r3;
  mad.wide.u32 %rd2, %r4, 4, %rd1;
  ld.global.u32 %r5, [%rd2]; add.u32 %r5, %r5, %r4; st.global.u32 [%rd2], %r5;
  ret;
}
"""
)


def test_an_instruction_that_is_not_known_is_an_error_of_its_kernel_alone() -> None:
    loaded = program(
        HEAD + ".visible .entry good() { ret; }\n"
        ".visible .entry bad() { .reg .b32 %r; frobnicate.b32 %r, 1; ret; }"
    )
    loaded.kernel("good")
    with pytest.raises(PtxError, match="instruction frobnicate is not supported") as caught:
        loaded.kernel("bad")
    assert (caught.value.line, caught.value.column) == (5, 39)
    assert caught.value.instruction == "frobnicate.b32 %r, 1"


@pytest.mark.parametrize(
    "instruction",
    [
        "add.s32 %r;",
        "add.s32 %r, %r;",
        "ld.global.u32 %r, %r;",
        "mov.u32 %r, %p;",
        "shfl.sync.b32 %r, %r, 1, 31, -1;",
        "setp.foo.s32 %p, %r, %r;",
        "add.s32 %p, %r, %r;",
        "cvt.u32 %r, %r;",
        "atom.global.mul.u32 %r, [%d], %r;",
    ],
)
def test_operands_that_do_not_fit(instruction: str) -> None:
    text = (
        HEAD
        + ".visible .entry k() { .reg .b32 %r; .reg .pred %p; .reg .b64 %d;\n"
        + f"{instruction} ret; }}"
    )
    with pytest.raises(PtxError) as caught:
        program(text).kernel("k")
    assert caught.value.line == 5


@pytest.mark.parametrize(
    "instruction",
    [
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%r], [%d, {%r, %r}], [%r]",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%d], [%r], %r",
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r], %r, [%r]",
        "red.async.relaxed.cluster.global.add.u32 [%d], %r",
        "tex.2d.v4.f32.s32 {%f, %f, %f, %f}, [%d, {%r, %r}]",
        "suld.b.2d.b32.trap %r, [%d, {%r, %r}]",
        "multimem.ld_reduce.global.add.f32 %f, [%d]",
        "wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.f16.f16 {%f, %f, %f, %f}, %d, %d, %r, 0,"
        " 1, 1, 1, 0, 0",
    ],
)
def test_what_there_is_not_says_where(instruction: str) -> None:
    text = (
        HEAD + ".visible .entry good() { ret; }\n.visible .entry k() {"
        ".reg .b32 %r; .reg .f32 %f; .reg .b64 %d;\n  " + instruction + ";\n ret; }"
    )
    loaded = program(text)
    loaded.kernel("good")
    with pytest.raises(PtxError, match="is not supported") as caught:
        loaded.kernel("k")
    assert (caught.value.line, caught.value.column) == (6, 3)


def test_clusters_of_several_blocks() -> None:
    text = HEAD + ".visible .entry k() .reqnctapercluster NUMBER, 1, 1 { ret; }"
    program(text.replace("NUMBER", "1")).kernel("k")
    with pytest.raises(PtxError, match="clusters of more than one block") as caught:
        program(text.replace("NUMBER", "2")).kernel("k")
    assert caught.value.line == 4


def test_changed_instructions_give_an_error_of_ours_or_a_kernel() -> None:
    path = os.path.join(os.path.dirname(__file__), "kernels.ptx")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    words = [t.text for t in tokenise(text)]
    chance = random.Random(11)
    refused = 0
    for _ in range(60):
        changed = list(words)
        for _ in range(2):
            at = chance.randrange(30, len(words) - 1)
            changed[at] = chance.choice(words[30:])
        try:
            loaded = program(" ".join(changed))
            for name in loaded.kernels():
                loaded.kernel(name)
        except PtxError:
            refused += 1
    assert refused > 20


def test_time_limit() -> None:
    start = time.monotonic()
    loaded = program(SPIN)
    kernel, _ = loaded.kernel("spin")
    kernel.variant((32, 1, 1))
    outcome = device().launcher.run(kernel, LaunchConfig((3, 1, 1), (32, 1, 1)), b"", 0.2)
    assert outcome.reason == "stop"
    assert time.monotonic() - start < 10


def test_ctrl_c() -> None:
    """In a process of its own: KeyboardInterrupt ends the kernel, and the next one runs."""
    code = f"""
import os, signal, threading, numpy as np
from tests.gpu.cpu_kernels import device, launch, program
spin, count = program({SPIN!r}), program({COUNT!r})
for loaded, name in ((spin, "spin"), (count, "count")):
    loaded.kernel(name)[0].variant((32, 1, 1))
device().time_limit = None
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    launch(spin, "spin", 1, 32)
except KeyboardInterrupt:
    a = np.zeros(32, "u4")
    launch(count, "count", 1, 32, a)
    print("interrupted", a.sum())
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([os.path.join(root, "src"), root])),
    )  # fmt: skip
    assert done.stdout == "interrupted 496\n", done.stderr


def test_wrong_launches() -> None:
    text = (
        HEAD
        + ".visible .entry k() .reqntid 64, 1, 1 { ret; }\n"
        + ".visible .entry m() .maxntid 128 { ret; }"
    )
    loaded = program(text)
    launch(loaded, "k", 1, 64)
    with pytest.raises(DriverError, match=r"'k': the kernel asks for blocks of \(64, 1, 1\)"):
        launch(loaded, "k", 1, 32)
    with pytest.raises(DriverError, match="at most 128"):
        launch(loaded, "m", 1, 256)


def test_freed_memory_is_a_fault() -> None:
    loaded = program(COUNT)
    pointer = device().allocate(1 << 16, None)
    device().free(pointer, None)
    with pytest.raises(KernelError, match="ILLEGAL_ADDRESS"):
        launch(loaded, "count", 1, 32, pointer)
    array = np.zeros(32, "u4")
    launch(loaded, "count", 1, 32, array)
    assert array.tolist() == list(range(32))


def test_threads_that_waited_for_one_that_failed() -> None:
    text = (
        HEAD
        + """.visible .entry k(.param .u64 p, .param .u32 n) {
          .reg .b32 %r<4>; .reg .b64 %d; .reg .pred %p;
          ld.param.u64 %d, [p]; ld.param.u32 %r2, [n];
          mov.u32 %r0, %tid.x; mad.wide.u32 %d, %r0, 4, %d;
          setp.eq.u32 %p, %r0, %r2;
          shfl.sync.bfly.b32 %r1, %r0, 2, 31, -1;
          @!%p bra on;
          trap;
        on: shfl.sync.bfly.b32 %r1, %r1, 1, 31, -1;
          st.global.u32 [%d], %r1;
          ret; }"""
    )
    loaded, array = program(text, threads=True), np.zeros(32, "u4")
    with pytest.raises(KernelError, match="trap"):
        launch(loaded, "k", 1, 32, array, 5)
    launch(loaded, "k", 1, 32, array, 99)
    assert array.tolist() == [n ^ 3 for n in range(32)]


def test_large_grids_on_all_processors() -> None:
    loaded = program(COUNT)
    array = np.zeros(1 << 18, "u4")
    for _ in range(5):
        launch(loaded, "count", 1 << 10, 256, array)
    assert (array == 5 * np.arange(1 << 18)).all()


def test_a_fault_stops_all_processors() -> None:
    loaded = program(COUNT)
    with pytest.raises(KernelError, match="ILLEGAL_ADDRESS"):
        launch(loaded, "count", 1 << 14, 256, 4096)


def test_a_fault_between_barriers_says_which_threads() -> None:
    text = """.visible .entry k(.param .u64 p) {
      .reg .b32 %r<4>; .reg .b64 %rd<2>; .reg .pred %p<3>;
      ld.param.u64 %rd1, [p]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x;
      bar.sync 0;
      setp.eq.u32 %p1, %r2, 3; @!%p1 bra after;
      setp.gt.u32 %p2, %r1, 70; @!%p2 bra after;
      mad.wide.u32 %rd1, %r1, 4, %rd1; st.global.u32 [%rd1], %r1;
    after:
      bar.sync 0;
      ret;
    }"""
    with pytest.raises(KernelError, match=r"\(3, 0, 0\).*64 to 95"):
        launch(program(HEAD + text), "k", 5, 128, 4096)


def test_a_failing_block_ends_those_that_wait_for_it() -> None:
    text = """.visible .entry wait(.param .u64 p) {
      .reg .b32 %r<4>; .reg .b64 %rd<2>; .reg .pred %p<3>;
      ld.param.u64 %rd1, [p];
      mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, WHO; @%p1 WHAT;
    again: ld.volatile.global.u32 %r2, [%rd1]; setp.eq.u32 %p2, %r2, 0; @%p2 bra again;
      ret;
    }"""
    for who, what, error in (
        (0, "trap", "LAUNCH_FAILED"),
        (63, "trap", "LAUNCH_FAILED"),
        (29, "st.global.u32 [4096], %r1", "ILLEGAL_ADDRESS"),
    ):
        loaded = program(HEAD + text.replace("WHO", str(who)).replace("WHAT", what))
        # Few threads stay on one processor, many are divided.
        for size in (64, 512):
            with pytest.raises(KernelError, match=rf"{error}.*block \({who}, 0, 0\)"):
                launch(loaded, "wait", 64, size, np.zeros(1, "u4"), cooperative=True)


def test_launches_from_several_threads() -> None:
    loaded = program(COUNT)
    loaded.kernel("count")[0].variant((64, 1, 1))
    arrays = [np.zeros(1 << 15, "u4") for _ in range(4)]

    def work(array: np.ndarray) -> None:
        for _ in range(10):
            launch(loaded, "count", 1 << 9, 64, array)

    threads = [threading.Thread(target=work, args=(array,)) for array in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for array in arrays:
        assert (array == 10 * np.arange(1 << 15)).all()


def test_use_after_fork() -> None:
    loaded = program(COUNT)
    array = np.zeros(1 << 16, "u4")
    launch(loaded, "count", 256, 256, array)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.alarm(30)
            launch(loaded, "count", 256, 256, array)
            launch(program(COUNT.replace("add.u32", "sub.u32")), "count", 2, 256, array)
            status = 0 if (array[512:] == 2 * np.arange(512, 1 << 16)).all() else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_outlines_are_kept_as_they_are() -> None:
    text = """
    .global .u64 table[2] = {word, generic(word) + 4};
    .const .align 8 .f64 half = 0d3FE0000000000000;
    .global .u32 word = 7;
    .visible .entry k(.param .u64 a, .param .align 8 .b8 b[24], .param .f32 c) .reqntid 8, 4
    { ret; }
    .visible .entry m() .maxntid 96 { ret; }"""
    loaded = program(HEAD + text)
    outline = outline_of(loaded.module, loaded.layout)
    assert unpack_outline(pack_outline(outline)) == outline == loaded.outline
    assert outline.kernels["k"].required_block == (8, 4, 1)
    assert outline.kernels["m"].max_threads == 96
    pointer, nbytes = loaded.variable("word")
    assert (nbytes, ctypes.c_uint32.from_address(pointer).value) == (4, 7)
    table, _ = loaded.variable("table")
    assert [ctypes.c_uint64.from_address(table + 8 * n).value for n in (0, 1)] == [
        pointer,
        pointer + 4,
    ]


def test_compiled_kernels_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from anyarch.gpu.cpu import program as module
    from anyarch.gpu.ptx import parser

    loaded = program(COUNT)
    loaded.kernel("count")[0].variant((96, 1, 1))
    monkeypatch.setattr(module, "compile_kernel", lambda *_: pytest.fail("compiled again"))
    monkeypatch.setattr(parser, "parse", lambda *_: pytest.fail("parsed again"))
    monkeypatch.setattr(module, "_mapped", {})
    again = program(COUNT)
    start = time.perf_counter()
    again.kernel("count")[0].variant((96, 1, 1))
    assert time.perf_counter() - start < 5
    assert isinstance(device().launcher, Launcher)


def _resources() -> tuple[int, int, int]:
    """Mappings, open files, threads."""
    gc.collect()
    with open("/proc/self/maps", encoding="utf-8") as file:
        mappings = len(file.readlines())
    return mappings, len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("check", [False, True])
def test_nothing_leaks(check: bool) -> None:
    home = gpu.Device("cpu", check=check)

    def work() -> None:
        module = home.load(COUNT)
        array = home.zeros(128, "u4")
        module["count"].launch(2, 64, array)
        stream = home.create_stream()
        module["count"].launch(2, 64, array, stream=stream)
        stream.synchronize()
        with pytest.raises(KernelError):
            module["count"].launch(2, 64, 4096)
            home.synchronize()
        with pytest.raises(gpu.OutOfMemoryError):
            home.allocate(1 << 60)
        with pytest.raises(PtxError):
            home.load(HEAD + "nonsense")
        module.unload()

    for _ in range(3):
        work()
    before = _resources()
    for _ in range(20):
        work()
    after = _resources()
    # Python's own allocator maps memory when it likes.
    assert after[0] - before[0] < 10
    assert after[1:] == before[1:]


def test_two_processes_at_once() -> None:
    code = f"""
import numpy as np
from tests.gpu.cpu_kernels import launch, program
loaded, array = program({COUNT!r}), np.zeros(1 << 16, "u4")
for _ in range(30):
    launch(loaded, "count", 256, 256, array)
print((array == 30 * np.arange(1 << 16)).all())
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = os.pathsep.join([os.path.join(root, "src"), root])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONPATH=paths),
        )
        for _ in range(2)
    ]
    assert [one.communicate(timeout=60)[0] for one in running] == ["True\n", "True\n"]
