"""Kernels by nvcc (`semantics.cu`) on the cpu backend, against NumPy and Python."""

from __future__ import annotations

import math
import os

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from anyarch import gpu  # noqa: E402
from anyarch.gpu.cpu.program import CpuProgram, Text  # noqa: E402
from anyarch.gpu.errors import KernelError  # noqa: E402
from tests.gpu.cpu_kernels import launch, program  # noqa: E402

RNG = np.random.default_rng(7)


@pytest.fixture(scope="module", params=[False, True], ids=["warps", "threads"])
def loaded(request: pytest.FixtureRequest) -> CpuProgram:
    path = os.path.join(os.path.dirname(__file__), "semantics.ptx")
    with open(path, encoding="utf-8") as file:
        return program(file.read(), threads=request.param)


def numbers(count: int, low: int = -100, high: int = 100) -> np.ndarray:
    return RNG.integers(low, high, count).astype("i4")


def test_shuffles(loaded: CpuProgram) -> None:
    n = 96
    x, out = numbers(n), np.zeros((9, n), "i4")
    launch(loaded, "shuffles", 1, n, x, out)
    for start in range(0, n, 32):
        w, got = x[start : start + 32].tolist(), out[:, start : start + 32].tolist()
        lanes = range(32)
        assert got[0] == [w[(start + t) * 7 & 31] for t in lanes]
        assert got[1] == [w[t - 3] if t >= 3 else w[t] for t in lanes]
        assert got[2] == [w[t + 5] if t + 5 < 32 else w[t] for t in lanes]
        assert got[3] == [w[t ^ 9] for t in lanes]
        assert got[4] == [w[t // 8 * 8 + 5] for t in lanes]
        assert got[5] == [w[t - 2] if t % 16 >= 2 else w[t] for t in lanes]
        assert got[6] == [w[t + 3] if t % 4 + 3 < 4 else w[t] for t in lanes]
        assert got[7] == [w[t ^ (t & 3)] for t in lanes]
        assert got[8] == [sum(w)] * 32


def test_votes(loaded: CpuProgram, request: pytest.FixtureRequest) -> None:
    n = 64
    x = numbers(n)
    x[32:] = 7
    out = np.zeros((8, n), "u4")
    launch(loaded, "votes", 1, n, x, out)
    for start in range(0, n, 32):
        w, got = x[start : start + 32].tolist(), out[:, start : start + 32].tolist()
        ballot = sum((v > 0) << t for t, v in enumerate(w))
        assert got[0] == [ballot] * 32
        assert got[1] == [int(max(w) > 90) + 2 * int(min(w) > -100)] * 32
        assert got[2] == [sum((v & 3 == u & 3) << t for t, v in enumerate(w)) for u in w]
        same = len(set(w)) == 1
        assert got[3] == [(0xFFFFFFFF + 1 if same else 0) & 0xFFFFFFFF] * 32
        assert got[4] == [sum(w) & 0xFFFFFFFF] * 32
        assert got[5] == [max(w) & 0xFFFFFFFF] * 32
        mixed = 0
        for v in w:
            mixed ^= v
        assert got[6] == [mixed & 0xFFFFFFFF] * 32
        if not request.node.callspec.id.startswith("threads"):  # there each thread is alone
            odd = any(v > 0 and v & 1 for v in w)
            assert got[7] == [(1 if odd else 2) if v > 0 else 3 for v in w]


@pytest.mark.parametrize("size", [32, 64, 256])
def test_sum_with_threads_that_leave_early(loaded: CpuProgram, size: int) -> None:
    count = 3 * size - 10
    x, out = numbers(count), np.zeros(3, "i4")
    launch(loaded, "block_sum", 3, size, x, out, count, shared=4 * size)
    assert out.tolist() == [int(x[k : k + size].sum()) for k in range(0, count, size)]


def test_barrier_votes(loaded: CpuProgram) -> None:
    n = 100
    x, out = numbers(n), np.zeros((3, n), "i4")
    launch(loaded, "barrier_votes", 1, n, x, out)
    assert out[0].tolist() == [int((x > 0).sum())] * n
    assert out[1].tolist() == [1] * n
    assert out[2].tolist() == [int(x.max() > 98)] * n


def test_barriers_match_by_number(loaded: CpuProgram) -> None:
    n = 128
    x, out = numbers(n), np.zeros(n, "i4")
    launch(loaded, "barrier_per_path", 1, n, x, out)
    odd = x & 1
    assert out.tolist() == (1000 * (n - odd.sum()) + np.where(np.roll(odd, -1), 1, 100)).tolist()


def test_named_barriers(loaded: CpuProgram) -> None:
    out = np.zeros(64, "i4")
    launch(loaded, "named_barriers", 1, 64, out, 10)
    assert out[32:].tolist() == [4500 + 10 * lane for lane in range(32)]


def test_atomics(loaded: CpuProgram) -> None:
    blocks, size = 5, 96
    n = blocks * size
    x = numbers(n)
    i, u = np.zeros(8 + n, "i4"), np.zeros(12, "u4")
    u[0] = 0xFFFFFFFF
    f, d, wide = np.zeros(2, "f4"), np.zeros(1, "f8"), np.zeros(2, "u8")
    launch(loaded, "atomics", blocks, size, i, u, f, d, wide, x)
    assert i[:6].tolist() == [x.sum(), min(x.min(), 0), max(x.max(), 0), -x.sum(), n, 4321]
    assert (i[8:] == 1).all()
    mixed = 0
    for t in range(n):
        mixed ^= t * 77
    assert u[:3].tolist() == [0xFFFF0000, 0xFFFFFFFF, mixed]
    inc = dec = 0
    for _ in range(n):
        inc = 0 if inc >= 17 else inc + 1
        dec = 13 if dec == 0 or dec > 13 else dec - 1
    assert u[3:5].tolist() == [inc, dec]
    assert f.tolist() == [n / 2, 2 * n]
    assert d[0] == n / 4
    squares = (x.astype("i8") ** 2).max()
    assert wide.tolist() == [sum(t << 20 for t in range(n)), squares]
    expected = [int(x[k::4].sum()) & 0xFFFFFFFF for k in range(4)]
    assert u[8:].tolist() == expected


def test_lock_that_lanes_of_a_warp_take(loaded: CpuProgram) -> None:
    lock, count = np.zeros(1, "i4"), np.zeros(1, "i4")
    launch(loaded, "spin_lock", 2, 64, lock, count)
    assert count[0] == 2 * 64 * 3
    assert lock[0] == 0


def test_warps_that_wait_for_each_other(loaded: CpuProgram) -> None:
    flag, out = np.zeros(8, "i4"), np.zeros(8, "i4")
    launch(loaded, "pass_on", 1, 256, flag, out)
    assert out.tolist() == [8, 7, 6, 5, 4, 3, 2, 1]


# The large grids are divided over the processors, also where blocks are one too many or too few.
@pytest.mark.parametrize(("blocks", "size"), [(6, 64), (17, 1024), (600, 32), (65, 256)])
def test_grid_that_waits_for_itself(loaded: CpuProgram, blocks: int, size: int) -> None:
    rounds = 7
    n = blocks * size
    data = np.zeros((2, n), "i4")
    data[0] = numbers(n)
    expected = data[0].copy()
    launch(loaded, "grid_rounds", blocks, size, data, rounds, cooperative=True)
    for _ in range(rounds):
        expected = np.roll(expected, -37) + 1
    assert (data[rounds & 1] == expected).all()


def test_recursion(loaded: CpuProgram) -> None:
    def ackermann(m: int, n: int) -> int:
        if m == 0:
            return n + 1
        return ackermann(m - 1, ackermann(m, n - 1) if n else 1)

    out = np.zeros(50, "i8")
    launch(loaded, "recursion", 1, 50, out)
    assert out.tolist() == [ackermann(t & 1, t % 5) + ackermann(2, t % 3) for t in range(50)]


def test_function_pointers(loaded: CpuProgram) -> None:
    functions = [lambda x: 2 * x, lambda x: x * x, lambda x: -x]
    for which in range(3):
        out = np.zeros(70, "i4")
        launch(loaded, "pointers", 1, 70, out, which)
        expected = [functions[which](t) + functions[t % 3](t + 1) for t in range(70)]
        assert out.tolist() == expected


def test_structures_by_value(loaded: CpuProgram) -> None:
    a = [3, 1, 4, 1, 5]
    value = np.array(
        [(a, 2.5, 9)], np.dtype([("a", "i4", 5), ("b", "f8"), ("c", "i1")], align=True)
    )
    out = np.zeros(40, "f8")
    launch(loaded, "structs", 1, 40, value.tobytes(), out)
    for t in range(40):
        w = list(a)
        w[t % 5] += 7
        w[(t + 1) % 5] += 7
        assert out[t] == sum(x * 10**k for k, x in enumerate(w)) + 10.0 + 11


def test_variables(loaded: CpuProgram) -> None:
    out = np.zeros(16, "i4")
    launch(loaded, "variables", 1, 16, out)
    assert out.tolist() == [1 + (t & 7) + 5 - (t % 2) for t in range(16)]
    launch(loaded, "variables", 1, 16, out)
    assert out[0] == 1 + 77


def test_local_arrays(loaded: CpuProgram) -> None:
    n = 64
    x, out = numbers(n), np.zeros(n, "i4")
    launch(loaded, "local_arrays", 1, n, x, out)
    for t in range(n):
        a = sorted(int(x[(t + k) % n]) for k in range(16))
        s = 0
        for v in a:
            s = s * 3 + v
        assert out[t] == np.int64(s + a[x[t] & 15]).astype("i4")


def test_small_types(loaded: CpuProgram) -> None:
    n = 80
    c, s = RNG.integers(-128, 128, n).astype("i1"), RNG.integers(0, 65536, n).astype("u2")
    oc, os_ = np.zeros(2 * n, "i1"), np.zeros(n, "u2")
    o4, o3 = np.zeros((n, 4), "u1"), np.zeros((n, 3), "f4")
    launch(loaded, "small_types", 1, n, c, s, oc, os_, o4, o3)
    t = np.arange(n)
    assert (oc[::2] == c - c[t * 5 % n]).all()
    assert (oc[1::2] == c >> 1).all()
    assert (os_ == (s[t * 3 % n].astype("i4") + c).astype("u2")).all()
    assert (o4 == np.stack([t, c.astype("i4"), t * 3, 255 - t], 1).astype("u1")).all()
    assert (o3 == np.stack([t, c * 0.5, s], 1).astype("f4")).all()


def test_halves(loaded: CpuProgram) -> None:
    n = 64
    a = (RNG.standard_normal((n, 2)) * 50).astype("f2")
    b = (RNG.standard_normal((n, 2)) * 3).astype("f2")
    a[0], b[1] = (6e-8, -6e-8), (0.0, -0.0)
    out = np.zeros((7, n, 2), "f2")
    launch(loaded, "halves", 1, n, a, b, out)
    assert (out[0] == a + b).all()
    assert (out[1] == a * b).all()
    exact = a.astype("f8") * b.astype("f8") + a.astype("f8")  # 53 bits hold it
    assert (out[2] == exact.astype("f2")).all()
    assert (out[3] == np.maximum(a, b)).all()
    assert (out[4] == -abs(a)).all()
    assert (out[5, :, 0] == (a[:, 0].astype("f4") * 3).astype("f2")).all()
    assert (out[5, :, 1] == b[:, 1] - a[:, 0]).all()
    assert (out[6] == (a < b)).all()


def to_bf16(x: np.ndarray) -> np.ndarray:
    bits = x.astype("f4").view("u4").astype("u8")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2")


def from_bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype("u4") << 16).view("f4").astype("f8")


def test_bfloats(loaded: CpuProgram) -> None:
    n = 64
    a = (RNG.standard_normal(n) * 30).astype("f4")
    out = np.zeros((5, n), "u2")
    launch(loaded, "bfloats", 1, n, a, out)
    x = to_bf16(a)
    y = np.roll(x, -1)
    fx, fy = from_bf16(x), from_bf16(y)
    assert (out[0] == x).all()
    assert (out[1] == to_bf16(fx + fy)).all()
    assert (out[2] == to_bf16(fx * fy)).all()
    assert (out[3] == to_bf16(fx * fy + fx)).all()
    assert (out[4] == a.view("u4") >> 16).all()


def test_collatz(loaded: CpuProgram) -> None:
    x, out = RNG.integers(1, 100000, 150).astype("u4"), np.zeros(150, "i4")
    launch(loaded, "collatz", 3, 50, x, out, 130)

    def one(v: int) -> int:
        n = 0
        while v != 1:
            if v & 1:
                v = 3 * v + 1
                if v > 100000000:
                    return -n
            else:
                v >>= 1
            n += 1
            if n > 130:
                return -1
            if n % 50 == 49:
                continue
            if v & 7 == 5:
                n += 1
        return n

    assert out.tolist() == [one(int(v)) for v in x]


def test_loop_with_two_entries(loaded: CpuProgram) -> None:
    n = 70
    x, out = numbers(n, 0, 1000), np.zeros(n, "i4")
    launch(loaded, "tangled", 1, n, x, out)

    def one(v: int) -> int:
        k, odd = 0, v & 1
        while True:
            if not odd:
                v = v * 3 + 1
                k += 2
                if k > 40:
                    break
                if v & 2:
                    continue
            v = (v >> 1) ^ k
            k += 3
            if k > 37:
                break
            odd = v & 4
        return v * 64 + k

    expected = [np.int64(one(int(v))).astype("i4") for v in x]
    assert out.tolist() == expected


def test_switches(loaded: CpuProgram) -> None:
    n = 70
    x, out = numbers(n, 0, 1000), np.zeros(n, "i4")
    launch(loaded, "cases", 1, n, x, out)

    def one(t: int) -> int:
        r = 0
        for k in range(6):
            case = (int(x[t]) + k) % 9
            if case in (0, 1):
                r = (r + 3 * (case == 0)) * 5
            elif case == 2:
                r ^= t
            elif case == 3:
                r -= 0 if k & 1 else 9
            elif case == 4:
                r = r * 2 + k
            elif case in (5, 6):
                r += int(x[(t + k) % n])
            else:
                r = ~r
        return r

    assert out.tolist() == [np.int64(one(t)).astype("i4") for t in range(n)]


def test_output(loaded: CpuProgram, capsys: pytest.CaptureFixture[str]) -> None:
    launch(loaded, "prints", 1, 32, 3)
    lines = [f"{t} {t * 1.5:5.2f}|text|ff  |x {1 << 40}" for t in range(3)]
    assert sorted(capsys.readouterr().out.splitlines()) == lines


def test_allocation(loaded: CpuProgram) -> None:
    import ctypes

    out = np.zeros(32, "u8")
    launch(loaded, "heap", 1, 32, out)
    assert len(set(out.tolist())) == 32
    for t, pointer in enumerate(out.tolist()):
        assert ctypes.c_int.from_address(pointer).value == 3 * t


@pytest.mark.parametrize(
    "block", [(32, 1, 1), (100, 1, 1), (16, 16, 1), (8, 4, 3), (4, 4, 4), (5, 7, 3), (64, 2, 1),
              (1, 64, 1), (1, 1, 40), (2, 3, 6), (16, 3, 2)],
)  # fmt: skip
def test_places_in_block_and_grid(loaded: CpuProgram, block: tuple[int, int, int]) -> None:
    grid = (3, 2, 2)
    size = math.prod(block)
    out = np.zeros((12, size, 4), "i4")
    launch(loaded, "sizes", grid, block, out)
    x, y, _ = block
    t = np.arange(size)
    for b in range(12):
        assert (out[b, :, 0] == t % x).all()
        assert (out[b, :, 1] == t // x % y).all()
        assert (out[b, :, 2] == t // x // y).all()
        assert (out[b, :, 3] == b).all()


@pytest.mark.parametrize("block", [(16, 16), (32, 8), (8, 8), (4, 8), (7, 9)])
def test_transpose(loaded: CpuProgram, block: tuple[int, int]) -> None:
    w, h = 77, 45
    a, out = RNG.standard_normal((h, w)).astype("f4"), np.zeros((w, h), "f4")
    grid = (-(-w // block[0]), -(-h // block[1]))
    launch(loaded, "transpose_any", grid, block, a, out, w, h)
    assert (out == a.T).all()


def test_indices_that_run_backwards(loaded: CpuProgram) -> None:
    n = 333
    a, out = RNG.standard_normal(n), np.zeros(n)
    launch(loaded, "reversed", 3, 128, a, out, n)
    expected = a.copy()
    expected[1:] += a[:-1]
    assert (out == expected[::-1]).all()


def test_asynchronous_copies(loaded: CpuProgram) -> None:
    n = 96
    a, out = RNG.standard_normal((n, 4)).astype("f4"), np.ones((2, n, 4), "f4")
    launch(loaded, "copies", 1, n, a, out, 8)
    t = np.arange(n)
    assert (out[0] == a[(t + 5) % n ^ 1]).all()
    expected = a.copy()
    expected[1::2, 2:] = 0  # 8 of 16 bytes are left out
    assert (out[1] == expected).all()


def test_barriers_in_shared_memory(loaded: CpuProgram) -> None:
    n, rounds = 128, 5
    out = np.zeros(n, "i4")
    launch(loaded, "phases", 1, n, out, rounds)
    assert (out == (np.arange(n) + 33 * rounds) % n + rounds).all()


@pytest.mark.parametrize("check", [False, True])
def test_barriers_that_count_bytes(check: bool) -> None:
    home = gpu.Device("cpu", check=check)
    module = home.load(os.path.join(os.path.dirname(__file__), "semantics.ptx"))
    n = 96
    x, out = np.arange(n, dtype="i4") * 3, home.zeros(n, "i4")
    module["transactions"].launch(1, n, gpu.to_device(x, home), out)
    assert (out.to_host() == np.roll(x, -1) + 1).all()
    seen = home.zeros(2, "i4")
    module["expected_bytes"].launch(1, 64, seen)
    assert seen.to_host().tolist() == [1, 1]


def test_parameters_and_results_in_registers() -> None:
    text = """.version 8.0
    .target sm_90
    .address_size 64
    .func (.reg .b32 %r, .reg .f32 %s) both(.reg .b32 %a, .reg .f32 %b) {
      .reg .pred %p;
      mul.lo.u32 %r, %a, 3; add.f32 %s, %b, 0f3F800000;
      setp.lt.u32 %p, %a, 10;
      @%p ret;
      add.u32 %r, %r, 1;
    }
    .visible .entry k(.param .u64 p, .param .u64 q) {
      .reg .b32 %r<4>; .reg .b64 %d<4>; .reg .f32 %f<2>;
      ld.param.u64 %d0, [p]; ld.param.u64 %d1, [q];
      mov.u32 %r0, %tid.x; cvt.rn.f32.u32 %f0, %r0;
      mad.wide.u32 %d0, %r0, 4, %d0; mad.wide.u32 %d1, %r0, 4, %d1;
      call (%r1, %f1), both, (%r0, %f0);
      st.global.u32 [%d0], %r1; st.global.f32 [%d1], %f1;
      ret;
    }"""
    p, q, n = np.zeros(40, "u4"), np.zeros(40, "f4"), np.arange(40)
    for threads in (False, True):
        launch(program(text, threads=threads), "k", 1, 40, p, q)
        assert (p == 3 * n + (n >= 10)).all()
        assert (q == n + 1).all()


# Faults.


def test_trap(loaded: CpuProgram) -> None:
    x = np.zeros(64, "i4")
    launch(loaded, "traps", 1, 64, x)
    x[40] = 13
    with pytest.raises(KernelError, match=r"LAUNCH_FAILED.*trap.*'traps' failed.*usable"):
        launch(loaded, "traps", 1, 64, x)
    launch(loaded, "traps", 1, 32, x)


def test_assertion(loaded: CpuProgram) -> None:
    x = np.full(32, 13, "i4")
    with pytest.raises(KernelError, match=r"assertion '.*!= 13' failed"):
        launch(loaded, "asserts", 1, 32, x)


def test_wild_address(loaded: CpuProgram) -> None:
    with pytest.raises(KernelError, match=r"ILLEGAL_ADDRESS.*address 0x.*block \(0, 0, 0\)"):
        launch(loaded, "wild", 1, 32, np.zeros(1, "i4"))
    test_trap(loaded)


def test_lanes_that_are_never_active_load_nothing() -> None:
    """Neighbours in shared memory, at places that go down: those of further lanes lie below it."""
    text = """.version 8.0
    .target sm_90
    .address_size 64
    .visible .entry k(.param .u64 p) {
      .reg .b32 %r<8>; .reg .b64 %d; .reg .pred %p; .shared .align 4 .b8 s[144];
      ld.param.u64 %d, [p]; mov.u32 %r0, %tid.x; mov.u32 %r2, s;
      mul.lo.u32 %r3, %r0, 68; sub.u32 %r2, %r2, %r3;
      setp.gt.s32 %p, %r0, 1;
      @%p bra done;
      st.shared.u32 [%r2+68], %r0; st.shared.u32 [%r2+72], 7; membar.cta;
      ld.shared.u32 %r4, [%r2+68]; ld.shared.u32 %r5, [%r2+72];
      add.u32 %r4, %r4, %r5; mad.wide.u32 %d, %r0, 4, %d; st.global.u32 [%d], %r4;
    done: ret;
    }"""
    out = np.zeros(2, "u4")
    # Optimised, LLVM drops in so small a kernel what the other lanes load.
    loaded = CpuProgram([Text(text, "PTX text")], {"optimization_level": 0})
    launch(loaded, "k", 1, 32, out)
    assert out.tolist() == [7, 8]
