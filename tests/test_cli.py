"""The command line: quick paths, exit statuses, messages, and output that is data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from anyarch._version import __version__
from anyarch.cli import main
from anyarch.cli.options import HelpWanted, UsageError, parse_run
from tests.programs.build import FOLDER, HOST, RISCV, compile_c

ARGUMENTS: Final = Path(__file__).parent / "programs" / "arguments.c"
SOURCE: Final = Path(__file__).parents[1] / "src"
# Runs the command with what executes guests replaced, to see what is made of its result.
STAND_IN: Final = """
import sys, types
module = types.ModuleType("anyarch._run")
def main_run(options):
    {body}
module.main_run = main_run
sys.modules["anyarch._run"] = module
from anyarch.cli import main
status = main(["run", *sys.argv[1:]])
slow = [name for name in ("typer", "rich", "llvmlite", "elftools") if name in sys.modules]
assert not slow, slow
sys.exit(status)
"""


def command(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own."""
    return python("-m", "anyarch", *arguments, **options)


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **variables}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=60
    )


def run_with(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-c", STAND_IN.format(body=body), *arguments)


def test_version_is_quick() -> None:
    result = python("-X", "importtime", "-m", "anyarch", "--version")
    assert result.stdout == f"anyarch {__version__}\n"
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert imported.isdisjoint({"typer", "rich", "llvmlite", "elftools", "dataclasses", "ctypes"})


def test_options_end_at_the_program() -> None:
    text = "-L/sys -E A=b=c --env=C= --engine=reference -v --max-insns 9 prog -v -- -x"
    options = parse_run(text.split())
    assert (options.root, options.environment) == ("/sys", ["A=b=c", "C="])
    assert (options.engine, options.verbose, options.max_insns) == ("reference", True, 9)
    assert (options.program, options.arguments) == ("prog", ["-v", "--", "-x"])
    assert parse_run(["--", "-odd", "x"]).program == "-odd"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no PROGRAM given"),
        (["--strace"], "no PROGRAM given"),
        (["--nosuch", "p"], "no option --nosuch"),
        (["-L"], "-L needs ROOT"),
        (["--stats=1", "p"], "--stats takes no value"),
        (["-E", "novalue", "p"], "expected NAME=VALUE"),
        (["--max-insns", "-3", "p"], "expected a positive number"),
        (["--engine", "warp", "p"], "expected one of auto, interp, jit, reference"),
    ],
)
def test_wrong_usage_of_run(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_run(arguments)


def test_help_of_run_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HelpWanted):
        parse_run(["-v", "--help"])
    assert main(["run", "-v", "--help"]) == 0
    output = capsys.readouterr().out
    for flag in ("--root", "--env", "--engine", "--strace", "--stats", "--count", "--max-insns"):
        assert flag in output


def test_status_of_the_guest_passes_through() -> None:
    assert run_with("return 42", sys.executable).returncode == 42


def test_signal_of_the_guest_is_raised_again() -> None:
    result = run_with("return -11", sys.executable)
    assert result.returncode == -signal.SIGSEGV
    assert run_with("return -9", sys.executable).returncode == -signal.SIGKILL


def test_interrupt_ends_by_sigint() -> None:
    result = run_with("raise KeyboardInterrupt", sys.executable)
    assert result.returncode == -signal.SIGINT
    assert result.stderr == ""


def test_a_guest_program_runs() -> None:
    program = compile_c(ARGUMENTS, RISCV)
    here = subprocess.run(
        [str(compile_c(ARGUMENTS, HOST)), "-v", "two words"],
        capture_output=True,
        text=True,
    )
    result = command("run", "--count", str(program), "-v", "two words")
    assert result.returncode == here.returncode
    assert result.stdout == here.stdout
    assert int(result.stderr.removeprefix("instructions: ")) > 1000
    assert command("run", "--max-insns", "100", str(program)).returncode == 124


def test_failures_of_run(tmp_path: Path) -> None:
    result = run_with("return 0", "nosuch")
    assert result.returncode == 127
    assert result.stderr == (
        "anyarch: error: nosuch: not found; PROGRAM is a path: "
        "./nosuch would be one in this directory\n"
    )
    result = run_with("return 0", "-L", str(tmp_path / "gone"), "/bin/nosuch")
    assert result.returncode == 127 and "gone is no directory" in result.stderr
    assert run_with("return 0", str(tmp_path)).returncode == 126
    body = "from anyarch.errors import LoadError; raise LoadError('p: not an ELF file')"
    result = run_with(body, sys.executable)
    assert result.returncode == 126
    assert result.stderr.startswith("anyarch: error: p: not an ELF file (`anyarch info ")
    body = "from anyarch.errors import HostError; raise HostError('no memory')"
    result = run_with(body, sys.executable)
    assert (result.returncode, result.stderr) == (125, "anyarch: error: no memory\n")


def test_program_is_found_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "only-there").touch()
    result = run_with("return 7", "-L", str(tmp_path), "/bin/only-there")
    assert result.returncode == 7


def test_asm_and_disasm_are_inverse(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["asm", "loop: addi a0, a0, -1; bnez a0, loop; ret"]) == 0
    words = capsys.readouterr().out.split()
    assert words == ["fff50513", "fe051ee3", "00008067"]
    assert main(["disasm", *words, "--base", "0x1000", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert [line["text"] for line in lines] == [
        "addi a0, a0, -1",
        "bne a0, zero, 0x1000",
        "jalr zero, 0(ra)",
    ]
    assert lines[1]["address"] == 0x1004
    raw = tmp_path / "code.bin"
    assert main(["asm", "-o", str(raw), "nop"]) == 0
    assert raw.read_bytes() == bytes.fromhex("13000000")
    assert main(["disasm", "--raw", str(raw)]) == 0
    assert "00000013  addi zero, zero, 0" in capsys.readouterr().out


def test_asm_reads_standard_input() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "anyarch", "asm", "-"],
        input="li a0, 1\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert (result.returncode, result.stdout) == (0, "00100513\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["asm", "frob a0"], "line 1: `frob a0`: riscv64 has no instruction 'frob'"),
        (["asm", "--arch", "vax", "nop"], "no architecture 'vax'; expected one of riscv64"),
        (["disasm", "nosuch.elf"], "neither a file nor an instruction word"),
        (["disasm", "123"], "3 hex digits; expected 2, 4, 8 or 16"),
        (["disasm", __file__], "not an ELF file; use --raw"),
        (["info", "/nosuch"], "/nosuch: No such file or directory"),
    ],
)
def test_one_line_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 125
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("anyarch: error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_wrong_usage_of_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm", "--base", "q", "0001"]) == 2
    assert main(["nosuch"]) == 2


def test_damaged_elf_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    program = compile_c(ARGUMENTS, RISCV)
    data = bytearray(program.read_bytes())
    for position in (4, 5, 32, 40, 54, 58, 60):
        damaged = bytearray(data)
        damaged[position : position + 2] = b"\xff\xff"
        path = tmp_path / f"damaged{position}"
        path.write_bytes(damaged)
        for name in ("info", "disasm"):
            result = command(name, str(path))
            assert "Traceback" not in result.stderr, (name, position)


def test_info_of_a_guest_program(capsys: pytest.CaptureFixture[str]) -> None:
    program = compile_c(ARGUMENTS, RISCV)
    assert program.parent == FOLDER
    assert main(["info", str(program), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["machine"] == "riscv" and facts["runs"] == "yes"
    assert {"i", "m", "a", "f", "d", "c"} <= set(facts["extensions"])


def test_info_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", sys.executable, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"] == "no" and "no definitions for" in facts["why not"]


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["llvmlite"]["status"] == "ok"
    assert status == any(check["status"] == "missing" for check in checks.values())
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")


def test_cache(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANYARCH_CACHE", str(tmp_path))
    (tmp_path / "00.blob").write_bytes(b"damaged")
    assert main(["cache", "info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["path"], facts["nbytes"], len(facts["entries"])) == (str(tmp_path), 7, 1)
    assert main(["cache", "verify"]) == 1
    assert main(["cache", "verify"]) == 0
    (tmp_path / "01.blob").write_bytes(b"four")
    capsys.readouterr()
    assert main(["cache", "gc", "--limit", "4k"]) == 0
    assert capsys.readouterr().out.startswith("0 entries removed, 0 bytes freed; 4 bytes are left")
    (tmp_path / "02.blob").write_bytes(bytes(5000))
    assert main(["cache", "gc", "--limit", "4k", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] <= 4096
    (tmp_path / "01.blob").write_bytes(b"four")
    (tmp_path / "02.blob").unlink(missing_ok=True)
    assert main(["cache", "gc", "--limit", "a lot"]) == 2
    assert "expected a size such as 500M" in capsys.readouterr().err
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "4 bytes freed\n"


def test_a_closed_pipe_is_quiet() -> None:
    program = compile_c(ARGUMENTS, RISCV)
    result = subprocess.run(
        f'"{sys.executable}" -m anyarch disasm {program} | head -n 2',
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert result.stderr == ""


def test_completion_knows_commands() -> None:
    result = command(_ANYARCH_COMPLETE="complete_bash", COMP_WORDS="anyarch ca", COMP_CWORD="1")
    assert result.stdout.split() == ["cache"]
