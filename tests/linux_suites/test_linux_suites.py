"""The runner of public suites, with programs of this machine in the place of a suite's."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.linux_suites.__main__ import main
from tests.linux_suites.suite import (
    Case,
    SuiteError,
    Verdict,
    find_cases,
    judge,
    launcher,
    read_list,
    run,
)

SHELL = "/bin/sh"
NAMESPACES = ("user", "mnt", "uts", "ipc", "pid", "net")


def shell(text: str) -> Case:
    return Case("case", (SHELL, "-c", text))


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0, Verdict.PASS),
        (1, Verdict.FAIL),
        (2, Verdict.BROKEN),
        (3, Verdict.FAIL),
        (4, Verdict.BROKEN),
        (32, Verdict.SKIP),
        (33, Verdict.FAIL),
        (36, Verdict.BROKEN),
        (127, Verdict.FAIL),
        (-signal.SIGSEGV, Verdict.BROKEN),
    ],
)
def test_statuses(status: int, verdict: Verdict) -> None:
    assert judge(status)[0] is verdict


def test_a_case_runs_in_a_folder_of_its_own() -> None:
    outcome = run(shell("pwd; echo $TMPDIR; ls -a | wc -l; exit 32"), launcher("native", []), 20)
    here, temporary, count = outcome.output.split()
    assert (here, count, outcome.verdict) == (temporary, "2", Verdict.SKIP)
    assert here != os.getcwd()
    assert not os.path.exists(here)


def test_what_takes_too_long_is_ended_with_its_children() -> None:
    outcome = run(shell("sleep 60 & echo $!; wait"), launcher("native", []), 0.5)
    assert outcome.verdict is Verdict.BROKEN
    assert "0.5 s" in outcome.reason
    with contextlib.suppress(ProcessLookupError):
        child = os.pidfd_open(int(outcome.output))
        assert select.select([child], [], [], 20)[0] == [child]  # readable once it has ended
        os.close(child)


def test_every_program_of_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    shutil.copy("/bin/true", tmp_path / "deeper" / "program")
    shutil.copy("/bin/true", tmp_path / "library.so")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o755)
    assert [case.name for case in find_cases(tmp_path)] == ["deeper/program"]
    with pytest.raises(SuiteError, match="build a suite first"):
        list(find_cases(tmp_path / "missing"))


def test_a_list_names_programs_and_arguments(tmp_path: Path) -> None:
    shutil.copy("/bin/true", tmp_path / "program")
    listed = tmp_path / "list"
    listed.write_text(
        "# a comment\n\none program -a 'b c'\ntwo missing\nthree program | cat\nfour program\n"
    )
    program = str((tmp_path / "program").resolve())
    assert list(read_list(tmp_path, listed)) == [
        Case("one", (program, "-a", "b c")),
        Case("four", (program,)),
    ]
    with pytest.raises(SuiteError, match="cannot be read"):
        list(read_list(tmp_path, tmp_path / "missing"))


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("true", "false"):
        shutil.copy(f"/bin/{name}", tmp_path / name)
    logs = tmp_path / "logs"
    arguments = [str(tmp_path), "--under", "native", "--logs", str(logs)]
    assert main([*arguments, "--exclude", "x$"]) == 0
    table = capsys.readouterr().out.split()
    assert table[table.index("native") :][:11:2] == ["native", "1", "1", "0", "0", "2"]
    assert (logs / "native" / "false.log").read_text() == "fail status 1\n"


def test_isolated_programs_see_only_each_other(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/readlink", program)
    listed = tmp_path / "list"
    listed.write_text("\n".join(f"{name} program /proc/self/ns/{name}" for name in NAMESPACES))
    logs = tmp_path / "logs"
    command = [sys.executable, "-m", "tests.linux_suites", str(tmp_path), "--list", str(listed)]
    command += ["--under", "native", "--logs", str(logs), "--isolate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "no namespaces" in done.stderr:
        pytest.skip("this machine does not allow namespaces")
    assert done.returncode == 0, done.stderr
    for name in NAMESPACES:
        verdict, namespace = (logs / "native" / f"{name}.log").read_text().splitlines()
        assert verdict == "pass"
        assert namespace != os.readlink(f"/proc/self/ns/{name}")
    shutil.copy("/bin/chmod", program)
    listed.write_text(
        "machine program 644 /proc/sys/fs/nr_open\ndevice program 666 /dev/null\n"
        f"loop program 666 /dev/loop-control\nfile program 755 {program}\nroot program 755 /\n"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    for name in ("machine", "device", "file", "root"):
        assert "Read-only file system" in (logs / "native" / f"{name}.log").read_text()


def test_orphans_of_isolated_programs_are_taken(tmp_path: Path) -> None:
    shutil.copy("/bin/sh", tmp_path / "program")
    script = tmp_path / "script"
    script.write_text(
        "(true &)\nfor i in $(seq 100); do\n"
        "grep -q '^State:.*Z' /proc/[0-9]*/status 2>/dev/null || exit 0; sleep 0.1\ndone; exit 1\n"
    )
    listed = tmp_path / "list"
    listed.write_text(f"orphan program {script}\n")
    command = [sys.executable, "-m", "tests.linux_suites", str(tmp_path), "--list", str(listed)]
    command += ["--under", "native", "--logs", str(tmp_path / "logs"), "--isolate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "no namespaces" in done.stderr:
        pytest.skip("this machine does not allow namespaces")
    assert (tmp_path / "logs" / "native" / "orphan.log").read_text() == "pass\n", done.stderr


def test_what_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--under", "no-such-emulator"]) == 2
    assert "is not installed" in capsys.readouterr().err
