"""Native launches, against a driver whose functions are ours."""

from __future__ import annotations

import ctypes
import gc
import struct
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from anyarch import gpu
from anyarch.gpu.backend import LaunchConfig
from anyarch.gpu.backends.launcher import DriverTable, NativeLauncher, find_launcher
from anyarch.gpu.backends.launches import RING_ENTRIES, RecentLaunches
from anyarch.gpu.entries import find_entries
from tests.gpu.python_backend import PythonDevice

PTX = """.version 8.0
.entry k(.param .f32 a, .param .u64 x, .param .s32 n, .param .f64 d, .param .u8 c, .param .s16 s,
    .param .b64 p) { ret; }
.entry nothing() { ret; }
.entry raw(.param .b32 x, .param .b64 y, .param .b16 z, .param .b8 w) { ret; }
.entry half(.param .f16 x) { ret; }
.entry structure(.param .b8 x[4]) { ret; }"""
CONTEXT, FUNCTION, OTHER_CONTEXT = 0x1000, 0x2000, 0x3000


class FakeDriver:
    """Records launches as (function, numbers, stream, parameters or their bytes)."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.current = CONTEXT
        self.pushes: list[int] = []
        self.launches: list[tuple[Any, ...]] = []
        self.result = 0
        self.held: list[bool] = []
        pointer, number = ctypes.c_void_p, ctypes.c_uint
        self.functions = {
            "cuCtxGetCurrent": ctypes.CFUNCTYPE(ctypes.c_int, pointer)(self.get_current),
            "cuCtxPushCurrent": ctypes.CFUNCTYPE(ctypes.c_int, pointer)(self.push),
            "cuCtxPopCurrent": ctypes.CFUNCTYPE(ctypes.c_int, pointer)(self.pop),
            "cuLaunchKernel": ctypes.CFUNCTYPE(
                ctypes.c_int, pointer, *[number] * 7, pointer, pointer, pointer
            )(self.launch),
        }
        self.functions["cuLaunchCooperativeKernel"] = self.functions["cuLaunchKernel"]

    def address(self, name: str) -> int:
        return ctypes.cast(self.functions[name], ctypes.c_void_p).value or 0

    def get_current(self, out: int) -> int:
        ctypes.c_uint64.from_address(out).value = self.current
        return 0

    def push(self, context: int) -> int:
        self.pushes.append(context)
        return 0

    def pop(self, out: int) -> int:
        self.pushes.append(-1)
        return 0

    def launch(self, function: int, *numbers: int) -> int:
        *extents, stream, parameters, _ = numbers
        pointers = (ctypes.c_uint64 * len(self.sizes)).from_address(parameters or id(self))
        data = [ctypes.string_at(at, size) for at, size in zip(pointers, self.sizes)]
        self.launches.append((function, tuple(extents), stream or 0, data))
        return self.result


class Case:
    """A native launcher of one kernel, and what it left to Python."""

    def __init__(self, native: NativeLauncher, name: str, owner: Any) -> None:
        signature = find_entries(PTX)[name]
        self.driver = FakeDriver([parameter.nbytes for parameter in signature.parameters])
        self.recent = RecentLaunches()
        self.number = self.recent.register(name)
        self.table = DriverTable(self.driver.address, CONTEXT, self.recent.pointer, owner)
        self.cell = ctypes.c_uint64(FUNCTION)
        self.left: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.made = native.launcher(self.table, self.cell, self.number, signature, self.slow)

    def slow(self, *args: Any, **named: Any) -> str:
        self.left.append((args, named))
        return "slow"

    def launch(self, *args: Any, **named: Any) -> Any:
        assert self.made is not None
        return self.made(*args, **named)


@pytest.fixture
def native() -> NativeLauncher:
    found = find_launcher()
    assert found is not None
    return found


Make = Callable[[str], Case]


@pytest.fixture
def make(native: NativeLauncher, gpus: list[PythonDevice]) -> Make:
    return lambda name: Case(native, name, gpus[0])


def test_arguments_arrive(make: Make) -> None:
    case = make("k")
    device = gpu.Device("cuda:0")
    x, y = device.allocate(64), gpu.to_device(b"abc", device)
    stream = gpu.Stream(device, 77)
    assert case.launch((1, 2, 3), 4, 0.5, x, -7, 2.25, 255, -2, y) is None
    case.launch(9, (8, 7), -1.5, y, (1 << 32) - 1, 0.0, -128, 65535, x, stream=stream)
    case.launch((5,), 1, 0.0, 12, 0, 0.0, 0, 0, x[8:16], shared_memory=4096, stream=None)
    assert not case.left
    one, two, three = case.driver.launches
    assert one[:3] == (FUNCTION, (1, 2, 3, 4, 1, 1, 0), 0)
    values = struct.unpack("=fQidBhQ", b"".join(one[3]))
    assert values == (0.5, x.pointer, -7, 2.25, 255, -2, y.pointer)
    assert two[:3] == (FUNCTION, (9, 1, 1, 8, 7, 1, 0), 77)
    assert [int.from_bytes(data, "little") for data in two[3]][1:3] == [y.pointer, (1 << 32) - 1]
    assert [data.hex() for data in two[3]][4:6] == ["80", "ffff"]
    assert three[1] == (5, 1, 1, 1, 1, 1, 4096)
    assert [int.from_bytes(data, "little") for data in three[3]][6] == x.pointer + 8


GOOD = (0.5, 1, 2, 3.0, 4, 5, None)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0, 1 << 60), (0, "1"), (0, 1e39), (0, float("inf")), (1, 1.0), (1, 1 << 63), (1, None),
        (1, True),
        (2, 1 << 32), (2, -(1 << 31) - 1), (2, 1.0), (3, None), (4, 256), (4, -129), (5, 1 << 16),
        (6, 5), (6, b"12345678"), (1, bytearray(8)),
    ],
)  # fmt: skip
def test_what_python_decides(make: Make, number: int, value: object) -> None:
    case = make("k")
    arguments = [*GOOD[:6], gpu.Device("cuda:0").allocate(4)]
    case.launch(1, 1, *arguments)
    assert len(case.driver.launches) == 1 and not case.left
    arguments[number] = value  # type: ignore[call-overload]
    assert case.launch(1, 1, *arguments) == "slow"
    assert len(case.driver.launches) == 1
    assert case.left == [((1, 1, *arguments), {})]


@pytest.mark.parametrize(
    ("grid", "block"),
    [(0, 1), (1, 0), (-1, 1), (1 << 31, 1), (1.0, 1), ((), 1), ((1, 1, 1, 1), 1), ([1, 1], 1),
     (1, (1, 0)), (1, True)],
)  # fmt: skip
def test_configurations_that_python_decides(make: Make, grid: object, block: object) -> None:
    case = make("nothing")
    assert case.launch(grid, block) == "slow"
    assert not case.driver.launches and case.left == [((grid, block), {})]


def test_keywords_that_python_decides(make: Make) -> None:
    case = make("nothing")
    other = gpu.Stream(gpu.Device("cuda:1"), 5)
    closed = gpu.Device("cuda:0").create_stream()
    closed.close()
    named: dict[str, Any]
    for named in (
        {"stream": other}, {"stream": closed}, {"stream": 1}, {"shared_memory": -1},
        {"shared_memory": 1 << 31}, {"cooperative": True}, {"unknown": 1}, {"grid": 1},
    ):  # fmt: skip
        assert case.launch(1, 1, **named) == "slow"
        assert case.left.pop() == ((1, 1), named)
    assert case.launch() == "slow" and case.launch(1) == "slow" and case.launch(1, 2, 3) == "slow"
    assert not case.driver.launches


def test_memory_that_python_decides(make: Make) -> None:
    case = make("k")
    here = gpu.Device("cuda:0").allocate(4)
    closed = gpu.Device("cuda:0").allocate(4)
    closed.close()
    elsewhere = gpu.Device("cuda:1").allocate(4)
    for bad in (closed, elsewhere):
        assert case.launch(1, 1, 0.5, bad, 1, 1.0, 1, 1, here) == "slow"
        assert case.launch(1, 1, 0.5, here, 1, 1.0, 1, 1, bad) == "slow"
    assert not case.driver.launches


def test_failures_are_left_to_python(make: Make) -> None:
    case = make("nothing")
    case.driver.result = 700
    assert case.launch(1, 1) == "slow"
    case.driver.result, case.cell.value = 0, 0  # the module was unloaded
    assert case.launch(1, 1) == "slow"
    assert len(case.driver.launches) == 1


def test_what_python_raises_arrives(native: NativeLauncher, gpus: list[PythonDevice]) -> None:
    case = Case(native, "nothing", gpus[0])

    def fail(*args: object, **named: object) -> None:
        raise gpu.ArgumentError("wrong")

    signature = find_entries(PTX)["nothing"]
    made = native.launcher(case.table, case.cell, 1, signature, fail)
    assert made is not None
    with pytest.raises(gpu.ArgumentError, match="wrong"):
        made(0, 0)


def test_kernels_that_python_launches(make: Make) -> None:
    assert make("half").made is None
    assert make("structure").made is None


def test_numpy_scalars(make: Make) -> None:
    np = pytest.importorskip("numpy")
    case = make("k")
    x = gpu.Device("cuda:0").allocate(64)
    case.launch(1, 1, np.float32(0.5), np.uint64(7), np.int8(-3), np.float64(2.5), np.uint16(255),
                np.int64(-32768), x)  # fmt: skip
    case.launch(1, 1, np.int32(-2), np.int64(-1), np.uint32(4294967295), np.float32(0.1),
                np.uint8(200), np.longlong(1), np.ulonglong(9))  # fmt: skip
    case.launch(1, 1, 3, x, 4, 5, 6, 7, np.float64(1.5))
    assert not case.left
    values = [struct.unpack("=fQidBhQ", b"".join(launch[3])) for launch in case.driver.launches]
    assert values[0] == (0.5, 7, -3, 2.5, 255, -32768, x.pointer)
    assert values[1] == (-2, (1 << 64) - 1, -1, float(np.float32(0.1)), 200, 1, 9)
    assert values[2][:6] == (3, x.pointer, 4, 5, 6, 7)
    assert values[2][6] == int.from_bytes(struct.pack("<d", 1.5), "little")
    good = (0.5, 1, 2, 3.0, 4, 5, x)
    for number, bad in (
        (0, np.float64(1e39)), (1, np.uint64(1 << 63)), (1, np.float32(1)), (2, np.int64(1 << 32)),
        (2, np.float32(1)), (4, np.int16(-129)), (6, np.int32(1)), (0, np.ones(1, "f4")),
        (2, np.ones((), "i4")), (0, np.float16(1)), (2, np.bool_(True)), (0, np.longdouble(1)),
    ):  # fmt: skip
        arguments = [*good[:number], bad, *good[number + 1 :]]
        assert case.launch(1, 1, *arguments) == "slow", (number, bad)


def test_bits(make: Make) -> None:
    np = pytest.importorskip("numpy")
    case = make("raw")
    case.launch(1, 1, np.float32(1), np.int64(-1), np.uint16(5), np.int8(-1))
    (_, _, _, data) = case.driver.launches[0]
    assert data == [struct.pack("<f", 1), b"\xff" * 8, b"\5\0", b"\xff"]
    for bad in (1, np.int64(1), np.int16(1), 1.0, b"1234"):
        assert case.launch(1, 1, bad, np.int64(1), np.int16(1), np.int8(1)) == "slow"


def test_calls(native: NativeLauncher, make: Make) -> None:
    case = make("nothing")
    seen: list[tuple[int, ...]] = []

    def function(*arguments: int) -> int:
        seen.append(arguments)
        return -7

    made = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 6)(function)
    address = ctypes.cast(made, ctypes.c_void_p).value or 0
    left: list[tuple[object, ...]] = []

    def slow(*arguments: object) -> int:
        left.append(arguments)
        return 99

    call = native.caller(case.table, address, 3, slow)
    case.driver.current = OTHER_CONTEXT
    assert call(1, 1 << 62, -1) == -7
    assert seen[0][:3] == (1, 1 << 62, -1) and case.driver.pushes == [CONTEXT, -1]
    assert call(1, 2) == call(1, 2, "3") == call(1, 2, 1 << 64) == call(1, 2, 3, 4) == 99
    assert len(seen) == 1 and len(left) == 4
    assert native.caller(case.table, address, 0, slow)() == -7
    with pytest.raises(ValueError, match="7 arguments"):
        native.caller(case.table, address, 7, slow)


def test_the_callers_context_is_restored(make: Make) -> None:
    case = make("nothing")
    case.launch(1, 1)
    assert case.driver.pushes == []
    case.driver.current = OTHER_CONTEXT
    case.launch(1, 1)
    assert case.driver.pushes == [CONTEXT, -1]


def test_prepared(native: NativeLauncher, gpus: list[PythonDevice]) -> None:
    case = Case(native, "k", gpus[0])
    values = [struct.pack("<Q", number) for number in range(7)]
    blocks = [ctypes.create_string_buffer(value, 8) for value in values]
    pointers = (ctypes.c_uint64 * 7)(*map(ctypes.addressof, blocks))
    config = LaunchConfig((1, 2, 3), (4, 5, 6), 7)

    def slow() -> str:
        return "slow"

    start = native.prepare(
        case.table, case.cell, case.number, config, ctypes.addressof(pointers), 88, slow
    )
    assert start() is None
    function, numbers, stream, data = case.driver.launches[0]
    assert (function, numbers, stream) == (FUNCTION, (1, 2, 3, 4, 5, 6, 7), 88)
    assert [piece[0] for piece in data] == list(range(7))
    case.driver.result = 1
    assert start() == "slow"  # type: ignore[func-returns-value]  # what `slow` returned
    reference = weakref.ref(slow)
    del slow
    assert reference() is not None
    del start
    gc.collect()
    assert reference() is None
    assert case.recent.suspects() == ("k",)


def test_a_driver_that_waits_lets_others_run(native: NativeLauncher, make: Make) -> None:
    case = make("nothing")
    entered, go_on = threading.Event(), threading.Event()

    def launch(*_: object) -> int:
        entered.set()
        assert go_on.wait(20)
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 11)
    case.driver.functions["cuLaunchKernel"] = kind(launch)
    table = DriverTable(case.driver.address, CONTEXT, case.recent.pointer, None)
    made = native.launcher(table, case.cell, 1, find_entries(PTX)["nothing"], case.slow)
    assert made is not None
    thread = threading.Thread(target=made, args=(1, 1))
    thread.start()
    assert entered.wait(20)
    go_on.set()  # this thread runs while the driver blocks
    thread.join(20)
    assert not thread.is_alive()


def test_nothing_is_lost_or_freed_too_often(make: Make) -> None:
    case = make("k")
    device = gpu.Device("cuda:0")
    x = device.allocate(64)
    stream = gpu.Stream(device, 1 << 40)
    pointer = x._pointer
    counts = [sys.getrefcount(thing) for thing in (x, pointer, stream, stream._handle, None)]
    for _ in range(1000):
        case.launch(1, (1, 2), 0.5, x, 100000, 2.0, 1, 1, x, stream=stream)
        case.launch(1, 1, 0.5, x, 100000, 2.0, 1, 1, 5)
    case.left.clear()
    case.driver.launches.clear()
    after = [sys.getrefcount(thing) for thing in (x, pointer, stream, stream._handle, None)]
    assert after[:4] == counts[:4]
    assert abs(after[4] - counts[4]) < 100


def test_suspects() -> None:
    recent = RecentLaunches()
    one, two = recent.register("one"), recent.register("two")
    assert recent.suspects() == ()
    recent.note(one, 1)
    recent.note(two, 2)
    recent.note(one, 1)
    assert recent.suspects() == ("one", "two")
    recent.finish_stream(1, recent.now())
    assert recent.suspects() == ("two",)
    recent.note(one, 1)
    assert recent.suspects() == ("one", "two")
    recent.finish_all(recent.now())
    assert recent.suspects() == ()
    for _ in range(RING_ENTRIES + 5):
        recent.note(two, 3)
    assert recent.suspects() == ("two",)
    recent.note(0, 3)
    assert recent.suspects() == ("a captured graph", "two")
