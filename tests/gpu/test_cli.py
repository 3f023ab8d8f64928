"""The ``anyarch gpu`` commands, on a device whose kernels are Python functions."""

from __future__ import annotations

import ctypes
import json
import struct
from pathlib import Path

import pytest

from anyarch import gpu
from anyarch.cli import main
from tests.gpu.python_backend import PythonDevice, illegal_address, integer, real

KERNELS = Path(__file__).with_name("kernels.ptx")


def test_list(gpus: list[PythonDevice], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu", "list"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == [
        "device",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    assert main(["gpu", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["devices"]) == 3


def test_list_says_why_there_is_no_gpu(
    capsys: pytest.CaptureFixture[str], cpu: PythonDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyarch.gpu import device as registry

    class Absent:
        def count(self) -> int:
            raise gpu.NoDriverError("no NVIDIA driver: gone")

    monkeypatch.setitem(registry._found, "cuda", Absent())
    assert main(["gpu", "list"]) == 0
    assert "no GPU: no NVIDIA driver: gone" in capsys.readouterr().out


def test_info(gpus: list[PythonDevice], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu", "info", "cuda:1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["device"], facts["can_access_peers"]) == ("cuda:1", ["cuda:0"])
    assert main(["gpu", "info"]) == 0
    assert "cuda:0" in capsys.readouterr().out
    assert main(["gpu", "info", "cuda:7"]) == 125
    assert "no device 'cuda:7': there are 2 of cuda" in capsys.readouterr().err


def test_run(cpu: PythonDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np = pytest.importorskip("numpy")
    np.save(tmp_path / "x.npy", np.arange(4, dtype="f4"))
    np.save(tmp_path / "y.npy", np.ones(4, dtype="f4"))

    def saxpy(config: object, a: bytes, x: bytes, y: bytes, n: bytes) -> None:
        for place in range(0, 4 * integer(n), 4):
            at = ctypes.c_float.from_address(integer(y) + place)
            at.value += real(a) * ctypes.c_float.from_address(integer(x) + place).value

    cpu.functions["saxpy"] = saxpy
    arguments = ["2.0", f"{tmp_path}/x.npy", f"{tmp_path}/y.npy:{tmp_path}/out.npy", "4"]
    command = ["gpu", "run", str(KERNELS), "-k", "saxpy", "--grid", "2,1", "--block", "32"]
    assert main([*command, *(part for text in arguments for part in ("--arg", text))]) == 0
    assert np.load(tmp_path / "out.npy").tolist() == [1, 3, 5, 7]
    printed = capsys.readouterr().out
    assert printed.startswith("saxpy on cpu: ") and f"wrote {tmp_path}/out.npy" in printed
    arguments[2] = f"zeros:2x2:f4:{tmp_path}/out2.npy"
    command += ["--repeat", "3", "--json"]
    assert main([*command, *(part for text in arguments for part in ("--arg", text))]) == 0
    assert len(json.loads(capsys.readouterr().out)["milliseconds"]) == 3
    assert np.load(tmp_path / "out2.npy").tolist() == [[0, 6], [12, 18]]


def test_structures(cpu: PythonDevice, capsys: pytest.CaptureFixture[str]) -> None:
    point = struct.pack("<dfb3x", 1, 2, 3)
    texts = [f"hex:{point.hex()}", "1", "-2", "0x10", "1e3", "null", "null"]
    command = ["gpu", "run", str(KERNELS), "-k", "takes"]
    assert main([*command, *(f"--arg={text}" for text in texts)]) == 0
    assert cpu.launches[0][2][:16] == point
    assert struct.unpack_from("<qd", cpu.launches[0][2], 24) == (16, 1000.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "has 9 kernels, say which: saxpy, number"),
        (["-k", "absent"], "no kernel 'absent' in"),
        (["-k", "nothing", "--grid", "a"], "--grid a: expected one to three numbers"),
        (["-k", "nothing", "--arg", "1"], "'nothing' takes 0 arguments, 1 given"),
        (["-k", "number", "--arg", "x", "--arg", "1"], "--arg x: expected a number, FILE.npy"),
        (["-k", "number", "--arg", "absent.npy", "--arg", "1"], "absent.npy: [Errno 2]"),
        (["-k", "number", "--arg", "zeros:4", "--arg", "1"], "expected zeros:SHAPE:TYPE:OUT.npy"),
        (["-k", "takes", "--arg", "hex:0g"], "expected pairs of hexadecimal digits"),
    ],
)
def test_run_errors(
    cpu: PythonDevice, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["gpu", "run", str(KERNELS), *arguments]) == 125
    error = capsys.readouterr().err
    assert error.startswith("anyarch: error: ") and message in error


def test_a_fault(cpu: PythonDevice, capsys: pytest.CaptureFixture[str]) -> None:
    cpu.functions["nothing"] = illegal_address
    assert main(["gpu", "run", str(KERNELS), "-k", "nothing"]) == 125
    assert "kernel 'bad' failed" in capsys.readouterr().err


def test_check(cpu: PythonDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu", "check", str(KERNELS)]) == 0
    printed = capsys.readouterr().out
    assert "saxpy(.f32 saxpy_param_0, .u64 saxpy_param_1" in printed
    assert "cpu: 8 registers" in printed
    bad = tmp_path / "bad.ptx"
    bad.write_text(".version 8.0\n.entry k(.param .u32")
    assert main(["gpu", "check", str(bad)]) == 125
    assert "PTX line 2, column 1: the parameters of k have no end" in capsys.readouterr().err


def test_bench(
    cpu: PythonDevice, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anyarch.cli.gpu._COPY_NBYTES", 1 << 16)
    assert main(["gpu", "bench", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["launch and synchronise, us"] > 0
    assert results["copy within the device, GB/s"] > 0
