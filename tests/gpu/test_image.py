"""Fatbins and cubins: made by the tests, and by nvcc where there is one."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyarch import gpu
from anyarch.gpu.fatbin import lz4_decompress, read_fatbin
from anyarch.gpu.image import open_image

KERNELS = Path(__file__).with_name("kernels.ptx")
LZ4, ZSTD, SPECIFIC, FAMILY = 0x2000, 0x8000, 0x100000, 0x200000


def ptx(text: str = "k") -> bytes:
    return f"\n.version 8.0\n.target sm_75\n.entry {text}() {{ ret; }}\n\0".encode()


def cubin() -> bytes:
    header = bytearray(64)
    header[:4], header[18] = b"\x7fELF", 190
    return bytes(header)


def entry(kind: int, number: int, payload: bytes, flags: int = 0, nbytes: int = 0) -> bytes:
    padded = payload + bytes(-len(payload) % 8)
    head = struct.pack(
        "<HHIQIIHHIIIQQQ", kind, 0x101, 64, len(padded), len(payload) if nbytes else 0, 0, 0, 8,
        number, 0, 0, flags, 0, nbytes,
    )  # fmt: skip
    return head + padded


def fatbin(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def lz4_literals(data: bytes) -> bytes:
    """An LZ4 block without matches."""
    out, rest = bytearray([min(len(data), 15) << 4]), len(data) - 15
    if rest >= 0:
        out += b"\xff" * (rest // 255) + bytes([rest % 255])
    return bytes(out) + data


def test_which_code_is_taken() -> None:
    data = fatbin(
        entry(1, 75, ptx("old")), entry(1, 90, ptx("new")), entry(2, 86, cubin()),
        entry(2, 80, cubin() + b"80"), entry(0x10, 80, b"something else"),
    )  # fmt: skip
    assert list(open_image(data, None).signatures) == ["new"]
    assert open_image(data, (8, 6)).cubin == cubin()
    found = open_image(data, (8, 0))
    assert found.cubin is not None and found.cubin[64:66] == b"80"
    assert list(found.signatures) == ["old"]  # the PTX beside it says what its parameters are
    for capability, name in (((7, 5), "old"), ((9, 0), "new"), ((10, 3), "new")):
        assert list(open_image(data, capability).signatures) == [name]
    with pytest.raises(gpu.ImageError, match=r"no code for sm_70; it holds PTX compute_75, PTX"):
        open_image(data, (7, 0))


def test_code_for_one_architecture_or_family() -> None:
    data = fatbin(entry(1, 90, ptx(), SPECIFIC), entry(2, 100, cubin(), FAMILY))
    assert open_image(data, (9, 0)).ptx is not None
    assert open_image(data, (10, 3)).cubin is not None
    with pytest.raises(gpu.ImageError, match="it holds PTX compute_90a, machine code sm_100f"):
        open_image(data, (12, 0))


def test_a_fatbin_without_ptx_is_nothing_for_the_cpu() -> None:
    with pytest.raises(gpu.ImageError, match="the fatbin holds no PTX; it holds machine code"):
        open_image(fatbin(entry(2, 90, cubin())), None)


def test_lz4() -> None:
    text = ptx() * 20
    data = fatbin(entry(1, 75, lz4_literals(text), LZ4, len(text)))
    assert open_image(data, None).ptx == text.rstrip(b"\0").decode()
    # Five literals, a match of 19 at distance 5 that overlaps itself, one literal.
    block = bytes([0x5F]) + b"abcde" + b"\5\0" + bytes([0]) + bytes([0x10]) + b"!"
    assert lz4_decompress(block, 25) == (b"abcde" * 5)[:24] + b"!"
    for bad, nbytes in ((block[:-3], 25), (block, 24), (block, 26), (b"\x1f", 1), (b"\5\0", 4)):
        with pytest.raises(gpu.ImageError, match="LZ4 data"):
            lz4_decompress(bad, nbytes)


@given(st.binary(max_size=200), st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_lz4_of_anything(data: bytes, nbytes: int) -> None:
    with contextlib.suppress(gpu.ImageError):
        assert len(lz4_decompress(data, nbytes)) == nbytes


def test_zstd() -> None:
    zstd = pytest.importorskip("backports.zstd")
    text = ptx() * 20
    data = fatbin(entry(1, 75, zstd.compress(text), ZSTD, len(text)))
    assert open_image(data, None).ptx == text.rstrip(b"\0").decode()
    for payload, nbytes in (
        (zstd.compress(text)[4:], len(text)),
        (zstd.compress(text), len(text) - 1),
        (zstd.compress(text)[:-5], len(text)),
    ):
        with pytest.raises(gpu.ImageError, match="zstd data"):
            open_image(fatbin(entry(1, 75, payload, ZSTD, nbytes)), None)


def test_zstd_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(gpu.ImageError, match=r"pip install 'anyarch\[gpu\]'"):
        open_image(fatbin(entry(1, 75, b"x", ZSTD, 10)), None)


def test_damaged_fatbins() -> None:
    whole = fatbin(entry(1, 75, ptx()), entry(2, 90, cubin()))
    for nbytes in range(4, len(whole) - 1):
        with pytest.raises(gpu.ImageError):
            open_image(whole[:nbytes], (9, 0))
    assert len(read_fatbin(whole + whole)) == 4


@given(st.integers(4, 200), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_fatbins_with_a_wrong_byte(place: int, value: int) -> None:
    data = bytearray(fatbin(entry(1, 75, ptx()), entry(2, 90, cubin())))
    data[place] = value
    for capability in (None, (9, 0)):
        with contextlib.suppress(gpu.ImageError, gpu.PtxError):
            open_image(bytes(data), capability)


def test_damaged_cubins() -> None:
    data = bytearray(cubin() + bytes(64))
    struct.pack_into("<Q", data, 40, 64)
    struct.pack_into("<H", data, 60, 1)
    assert open_image(bytes(data), (9, 0)).cubin is not None
    with pytest.raises(gpu.ImageError, match="within its headers"):
        open_image(bytes(data[:100]), (9, 0))
    struct.pack_into("<4xI16xQQ", data, 64, 1, 100, 29)
    with pytest.raises(gpu.ImageError, match="within section 0"):
        open_image(bytes(data), (9, 0))


NVCC = shutil.which("nvcc")


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize("mode", ["speed", "default"])
def test_what_nvcc_writes(tmp_path: Path, mode: str) -> None:
    if mode == "default":
        pytest.importorskip("backports.zstd")
    path = tmp_path / "k.fatbin"
    targets = ("-gencode=arch=compute_75,code=compute_75", "-gencode=arch=compute_90,code=sm_90")
    source = tmp_path / "k.cu"
    source.write_text(
        'extern "C" __global__ void k(float *x, int n) { x[threadIdx.x] = n; }\n'
        'extern "C" __global__ void two(double *x) { *x = sqrt(*x); }\n'
    )
    files = [str(source), "-o", str(path)]
    command = [NVCC or "", "-fatbin", *targets, f"--compress-mode={mode}", *files]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    image = open_image(path, None)
    assert set(image.signatures) == {"k", "two"}
    assert [str(p) for p in image.signatures["k"].parameters] == [".u64", ".u32"]
    native = open_image(path, (9, 0))
    assert native.cubin is not None and native.cubin.startswith(b"\x7fELF")
