"""The CUDA backend on a GPU. kernels.ptx is ours: see kernels.cu for how it is made."""

from __future__ import annotations

import ctypes
import gc
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from anyarch import gpu
from tests.gpu.test_linking import LIBRARY, MAIN

KERNELS = Path(__file__).with_name("kernels.ptx")


def _why_not() -> str:
    try:
        gpu.Device("cuda:0")
    except gpu.NoDeviceError as error:
        return str(error)
    return ""


WHY_NOT = _why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"needs an NVIDIA GPU: {WHY_NOT}")


@pytest.fixture(scope="module")
def device() -> gpu.Device:
    return gpu.Device("cuda:0")


@pytest.fixture(scope="module")
def module(device: gpu.Device) -> gpu.Module:
    return device.load(KERNELS)


def ints(buffer: gpu.Buffer) -> list[int]:
    return list(struct.unpack(f"<{buffer.nbytes // 4}i", buffer.to_bytes()))


def run(code: str) -> str:
    """What a process of its own prints: faults make a GPU unusable for the process."""
    start = f"import anyarch.gpu as gpu\ndevice = gpu.Device('cuda:0')\nK = {str(KERNELS)!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_properties(device: gpu.Device) -> None:
    properties = device.properties
    assert properties.name and device.name == properties.name
    assert properties.compute_capability >= (7, 5) and properties.warp_size == 32
    assert properties.multiprocessors > 0 and properties.clock > 100_000
    assert properties.max_threads_per_block == 1024
    assert properties.shared_memory_per_block_optin >= properties.shared_memory_per_block
    assert len(properties.uuid) == 36 and properties.pci_address.count(":") == 2
    free, total = device.memory_info()
    assert 0 < free <= total <= properties.memory_nbytes
    driver = device.versions.driver
    assert driver is not None and driver >= (12, 0)
    assert gpu.Device() == device and gpu.devices()[0] == device
    with pytest.raises(gpu.NoDeviceError, match=r"there (is|are)"):
        gpu.Device("cuda:999")


def test_attributes_and_occupancy(device: gpu.Device, module: gpu.Module) -> None:
    kernel = module["reverse"]
    attributes = kernel.attributes
    assert 0 < attributes.registers < 256 and attributes.max_threads_per_block == 1024
    major, minor = device.properties.compute_capability
    assert attributes.binary_version == major * 10 + minor and attributes.ptx_version == 75
    per_multiprocessor = device.properties.max_threads_per_multiprocessor
    occupancy = kernel.occupancy(256)
    assert occupancy.blocks_per_multiprocessor == per_multiprocessor // 256
    assert occupancy.best_block % 32 == 0 and occupancy.smallest_grid > 0
    assert kernel.occupancy(256, 64 << 10).blocks_per_multiprocessor < per_multiprocessor // 256


def test_streams_and_events(device: gpu.Device, module: gpu.Module) -> None:
    wait, number = module["wait"], module["number"]
    one, two = device.create_stream(), device.create_stream(priority=device.stream_priorities[0])
    assert two.priority == device.stream_priorities[0] < 0
    x = device.zeros(256, "i4")
    start = one.record()
    wait.launch(1, 1, 20_000_000, stream=one)
    number.launch(1, 256, x, 7, stream=one)
    end = one.record()
    assert not one.done and not end.done
    two.wait(end)
    out = device.empty(256, "i4")
    out.copy_from(x, stream=two)
    two.synchronize()
    assert ints(out) == list(range(7, 263))
    assert one.done and end.done and 20 <= end - start < 1000
    wait.launch(1, 1, 1_000_000, stream=one)
    device.synchronize()
    assert one.done
    number.launch(1, 256, x, 0, stream=device.per_thread_stream)
    device.per_thread_stream.synchronize()
    assert ints(x) == list(range(256))


def test_a_full_queue_and_a_callback_do_not_deadlock(
    device: gpu.Device, module: gpu.Module
) -> None:
    stream = device.create_stream()
    release = threading.Event()
    stream.call_host(release.wait, 60)
    threading.Timer(1.0, release.set).start()
    start = time.monotonic()
    launch = module["nothing"].prepare(1, 1, stream=stream)
    for _ in range(20_000):  # far more than the queue holds: launches wait for the callback
        launch()
    stream.synchronize()
    assert 0.5 < time.monotonic() - start < 30


def test_nothing_leaks(device: gpu.Device) -> None:
    def once() -> None:
        module = device.load(KERNELS)
        stream = device.create_stream()
        buffer = device.allocate(64 << 20)
        pinned = device.allocate_pinned(1 << 20)
        array = device.zeros(1 << 20, stream=stream)
        with stream.capture() as graph:
            module["nothing"].launch(1, 1, stream=stream)
        graph.launch(stream)
        start = module["scale"].prepare(1, 1, array, stream=stream)
        start()
        stream.record().synchronize()
        buffer[: 1 << 20].copy_from(pinned, stream=stream)
        stream.synchronize()

    for _ in range(3):  # what is allocated once is allocated now
        once()
    gc.collect()
    device.synchronize()
    free, _ = device.memory_info()
    for _ in range(50):
        once()
    gc.collect()
    device.synchronize()
    after, _ = device.memory_info()
    assert free - after <= 4 << 20


def test_out_of_memory(device: gpu.Device) -> None:
    with pytest.raises(gpu.OutOfMemoryError, match=r"bytes asked for, .* are free"):
        device.allocate(1 << 50)
    assert device.allocate(1 << 20).nbytes == 1 << 20


def test_ptx_that_is_wrong(device: gpu.Device) -> None:
    text = KERNELS.read_text()
    bad = text.replace("ret;", "ret;\n\tbogus.u32 \t%r1, %r2;", 1)
    with pytest.raises(gpu.PtxError) as caught:
        device.load(bad)
    assert caught.value.line == text[: text.index("ret;")].count("\n") + 2
    assert "bogus" in caught.value.instruction
    newer = text.replace(".version 9.0", ".version 99.0")
    with pytest.raises(gpu.PtxError, match=r"99\.0"):
        device.load(newer)
    with pytest.raises(gpu.ImageError, match="not PTX"):
        device.load(b"nothing")
    empty = device.load(".version 7.0\n.target sm_75\n.address_size 64\n")
    assert len(empty) == 0


def test_linking(device: gpu.Device, tmp_path: Path) -> None:
    for sources in ((MAIN, LIBRARY), (LIBRARY, MAIN)):
        module = device.load(sources)
        out = device.zeros(40, "i4")
        module["run"].launch(1, 40, out)
        assert ints(out) == [2 * n + 1 for n in range(40)]
        assert module.variable("calls").to_bytes() == (140).to_bytes(4, "little")
    with pytest.raises(gpu.ImageError, match="calls"):
        device.load([LIBRARY, LIBRARY])
    bad = tmp_path / "bad.ptx"
    bad.write_text(LIBRARY.replace("ld.global.u64 %d", "nonsense.u64 %d"))
    with pytest.raises(gpu.PtxError, match=r"bad.ptx, PTX line 15") as caught:
        device.load([MAIN, bad])
    assert caught.value.origin == str(bad)


def test_options(device: gpu.Device) -> None:
    # The driver compiles nothing, and says nothing, for text that it has seen before.
    text = f"{KERNELS.read_text()}\n// {os.getpid()} {time.time()}\n"
    module = device.load(text, max_registers=32, optimization_level=1, line_info=True, verbose=True)
    assert module["reverse"].attributes.registers <= 32
    assert "reverse" in module.log
    module["nothing"].launch(1, 1)
    device.synchronize()


def test_configurations(device: gpu.Device, module: gpu.Module) -> None:
    kernel = module["nothing"]
    for grid, block in ((0, 1), (1, 2048), ((1, 1 << 17), 1), (1, (64, 64))):
        with pytest.raises(gpu.RangeError):
            kernel.launch(grid, block)
    with pytest.raises(gpu.ArgumentError, match="takes 4 arguments"):
        module["saxpy"].launch(1, 1)
    with pytest.raises(gpu.ArgumentError, match="on the host is not on cuda:0"):
        module["saxpy"].launch(1, 1, 1.0, bytearray(4), None, 1)
    with pytest.raises(gpu.ClosedError):
        gone = device.empty(4)
        gone.close()
        module["saxpy"].launch(1, 1, 1.0, gone, gone, 1)


def test_a_fault_names_the_kernel() -> None:
    printed = run(
        """
m = device.load(K)
x = device.zeros(32, "i4")
m["number"].launch(1, 32, x, 0)
device.synchronize()
m["wild"].launch(1, 32, x)
for what in (device.synchronize, lambda: device.allocate(4), lambda: x.to_bytes()):
    try:
        what()
    except gpu.KernelError as error:
        print(error.kernels, error.usable, error.name, "wild" in str(error))
x.close()
"""
    )
    line = "('wild',) False CUDA_ERROR_ILLEGAL_ADDRESS True"
    assert printed.splitlines() == [line] * 3


def test_a_fault_that_a_destructor_meets_first() -> None:
    printed = run(
        """
m = device.load(K)
x = device.zeros(32, "i4")
y = device.zeros(32, "i4")
m["wild"].launch(1, 32, x)
import time; time.sleep(0.2)
del y
x.close()
try:
    device.synchronize()
except gpu.KernelError as error:
    print(error.kernels)
"""
    )
    assert printed.strip() == "('wild',)"


def test_a_fault_of_a_prepared_launch() -> None:
    printed = run(
        """
m = device.load(K)
x = device.zeros(32, "i4")
start = m["wild"].prepare(1, 32, x)
m["number"].launch(1, 32, x, 0)
start()
try:
    device.default_stream.synchronize()
except gpu.KernelError as error:
    print(error.kernels)
"""
    )
    assert printed.strip() == "('wild', 'number')"


ENDLESS = """
import os, signal, threading, time
m = device.load('''.version 7.0
.target sm_75
.address_size 64
.visible .entry poll(.param .u64 flag) {
    .reg .b64 %d; .reg .b32 %r; .reg .pred %p;
    ld.param.u64 %d, [flag];
again:
    ld.volatile.global.u32 %r, [%d];   setp.eq.u32 %p, %r, 0;   @%p bra again;
    ret;
}''')
flag = device.allocate_pinned(4)
flag.view[:] = bytes(4)
x = device.zeros(32, "i4")
stream = device.create_stream()
m["poll"].prepare(1, 1, flag, stream=stream)()
m["poll"].launch(1, 1, flag)
def interrupted(wait):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    try:
        wait()
    except KeyboardInterrupt:
        print("interrupted", 0.3 < time.monotonic() - start < 3, flush=True)
"""


def test_ctrl_c_ends_waits() -> None:
    code = """
after = stream.record()
waits = [device.synchronize, stream.synchronize, after.synchronize, x.to_bytes, x.to_host]
waits += [lambda: x.copy_from(bytes(128)), lambda: x.fill(1)]
for wait in waits:
    interrupted(wait)
del x  # freeing it would wait
flag.view[:] = bytes([1] * 4)
device.synchronize()
print(stream.done)
"""
    lines = run(ENDLESS + code).splitlines()
    assert lines == ["interrupted True"] * 7 + ["True"]


def test_a_process_ends_beside_a_kernel_that_does_not() -> None:
    assert run(ENDLESS + "interrupted(device.synchronize)") == "interrupted True\n"


def test_fork_after_use() -> None:
    printed = run(
        """
import os
x = device.zeros(32)
pid = os.fork()
if pid == 0:
    for what in (lambda: x.to_bytes(), lambda: gpu.Device("cuda:0"), lambda: device.allocate(4)):
        try:
            what()
        except gpu.BrokenDriverError as error:
            print("before this process was forked" in str(error), flush=True)
    del x
    os._exit(0)
print(os.waitpid(pid, 0)[1])
print(len(x.to_bytes()))
"""
    )
    assert printed.split() == ["True"] * 3 + ["0", "128"]


def test_two_processes_at_once() -> None:
    code = (
        f"import anyarch.gpu as gpu\nd = gpu.Device('cuda:0')\nx = d.zeros(256, 'i4')\n"
        f"k = d.load({str(KERNELS)!r})['number']\n"
        "for n in range(1000): k.launch(1, 256, x, n)\n"
        "print(int.from_bytes(x.to_bytes()[:4], 'little'))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=300)[0].strip() for process in both] == ["999", "999"]


def test_hidden_devices() -> None:
    code = (
        "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
        "import anyarch.gpu as gpu\n"
        "try: gpu.Device('cuda:0')\n"
        "except gpu.NoDeviceError as error: print(type(error).__name__, error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert printed.startswith("NoDeviceError the NVIDIA driver finds no GPU; CUDA_VISIBLE_DEVICES")


def test_two_gpus(module: gpu.Module) -> None:
    found = [device for device in gpu.devices() if device.backend == "cuda"]
    if len(found) < 2:
        pytest.skip("needs two GPUs")
    one, two = found[:2]
    data = bytes(range(256)) * 4096
    here, there = one.allocate(len(data)), two.allocate(len(data))
    here.copy_from(data)
    there.copy_from(here)
    assert there.to_bytes() == data
    stream = two.create_stream()
    there.fill(0)
    there.copy_from(here, stream=stream)
    stream.synchronize()
    assert there.to_bytes() == data
    x = two.zeros(256, "i4")
    with pytest.raises(gpu.ArgumentError, match="memory of cuda:1 cannot be used"):
        module["number"].launch(1, 256, x, 1)
    kernels = {device: device.load(KERNELS)["number"] for device in found}
    shares = gpu.split(256 * 64, found, 256)
    parts = []
    for device, start, stop in shares:
        part = device.empty(stop - start, "i4")
        kernels[device].launch((stop - start) // 256, 256, part, start)
        parts.append(part)
    out = memoryview(bytearray(4 * 256 * 64)).cast("i")
    assert gpu.gather(parts, out).tolist() == list(range(256 * 64))
    if one.can_access_peer(two):
        one.enable_peer_access(two)
        kernels[one].launch(1, 256, x, 1)
        one.synchronize()
        assert ints(x) == list(range(1, 257))


def test_gpus_that_are_not_linked() -> None:
    """Copies then go through the host."""
    if sum(device.backend == "cuda" for device in gpu.devices()) < 2:
        pytest.skip("needs two GPUs")
    printed = run(
        """
from anyarch.gpu.backends.cuda_device import CudaDevice
CudaDevice.can_access_peer = lambda self, other: False
two = gpu.Device("cuda:1")
data = bytes(range(256)) * 40000
here, there = device.allocate(len(data)), two.allocate(len(data))
here.copy_from(data)
there.copy_from(here)
print(there.to_bytes() == data)
stream = two.create_stream()
there.fill(0)
there.copy_from(here, stream=stream)
stream.synchronize()
print(there.to_bytes() == data)
try:
    device.enable_peer_access(two)
except gpu.RangeError as error:
    print(error)
"""
    )
    assert printed.splitlines() == ["True", "True", "cuda:0 cannot reach the memory of cuda:1"]


# Arrays and streams of other libraries.


def test_torch(device: gpu.Device, module: gpu.Module) -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(1000, dtype=torch.float32, device="cuda")
    y = gpu.to_device(x)
    assert isinstance(y, gpu.DeviceArray) and y.shape == (1000,)
    module["saxpy"].launch(4, 256, 2.0, x, y, 1000)
    device.synchronize()
    assert torch.equal(torch.from_dlpack(y), 3 * x)
    assert torch.equal(torch.as_tensor(y, device="cuda"), 3 * x)
    wrapped = gpu.from_dlpack(x)
    assert wrapped.pointer == x.data_ptr() and wrapped.typestr == "<f4"
    wrapped.fill(0)
    assert not x.any().item()
    stream = torch.cuda.Stream()
    ours = device.stream(stream.cuda_stream)
    with torch.cuda.stream(stream):
        z = torch.ones(1000, device="cuda")
        module["saxpy"].launch(4, 256, 1.0, z, x, 1000, stream=ours)
        assert (x.sum() == 1000).item()
    assert torch.cuda.current_device() == 0


def test_cupy(device: gpu.Device, module: gpu.Module) -> None:
    cupy = pytest.importorskip("cupy")
    x = cupy.arange(1000, dtype="f4")
    y = device.zeros(1000)
    module["saxpy"].launch(4, 256, 2.0, x, y, 1000)
    device.synchronize()
    assert bool((cupy.asarray(y) == 2 * x).all())
    assert bool((cupy.from_dlpack(y) == 2 * x).all())
    assert gpu.from_dlpack(x).pointer == x.data.ptr
    assert device.wrap(x).shape == (1000,)
    assert gpu.to_device(x).to_bytes() == cupy.asnumpy(x).tobytes()


def test_cuda_core(device: gpu.Device, module: gpu.Module) -> None:
    core = pytest.importorskip("cuda.core")
    theirs = core.Device(0)
    theirs.set_current()
    stream = theirs.create_stream()
    x = device.zeros(256, "i4")
    module["number"].launch(1, 256, x, 4, stream=stream)
    stream.sync()
    assert ints(x) == list(range(4, 260))
    assert int(theirs.create_stream(device.create_stream()).handle) > 0


def test_a_cubin(device: gpu.Device, tmp_path: Path) -> None:
    major, minor = device.properties.compute_capability
    cubin = tmp_path / "kernels.cubin"
    command = ["ptxas", f"-arch=sm_{major}{minor}", str(KERNELS), "-o", str(cubin)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs ptxas: {error}")
    module = device.load(cubin)
    assert set(module) == set(device.load(KERNELS))
    x = device.zeros(256, "i4")
    kernel = module["number"]
    assert [(p.offset, p.nbytes) for p in kernel.signature.parameters] == [(0, 8), (8, 4)]
    kernel.launch(1, 256, x, ctypes.c_int32(6))
    assert ints(x) == list(range(6, 262))
    with pytest.raises(gpu.ArgumentError, match="NumPy scalar or 4 bytes"):
        kernel.launch(1, 256, x, 6)
    with pytest.raises(gpu.ImageError, match="cubin"):
        device.load(cubin.read_bytes()[:200])
