"""Shells and tmux on a terminal: job control, full-screen programs. With ANYARCH_PACKAGES=all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.real.starting import PATIENCE, anyarch_run
from tests.real.terminal import Terminal
from tests.real.test_packages import all_packages, environment, run

pytestmark = all_packages


@pytest.mark.parametrize("shell", ["bash --norc --noprofile -i", "dash -i"])
def test_job_control(shell: str, interactive_root: Path, tmp_path: Path) -> None:
    name, *options = shell.split()
    command = [*anyarch_run("-L", str(interactive_root)), f"/bin/{name}"]
    settings = dict(environment(tmp_path), PS1="ready> ", TERM="dumb")
    # A program says so once it is in the foreground: what is typed before that is the shell's.
    program = "sh -c 'echo begun; exec sleep 1000'\r"
    with Terminal([*command, *options], tmp_path, settings) as terminal:
        terminal.expect("ready> ")
        terminal.type("echo a; cat\r")
        terminal.expect("\na\r\n")
        terminal.type("typed\r")
        terminal.expect("typed\r\ntyped\r\n")
        terminal.type("\x03")
        terminal.expect("ready> ")
        terminal.type("echo status $?\r")
        terminal.expect("status 130\r\n")
        terminal.expect("ready> ")
        terminal.type(program)
        terminal.expect("\nbegun\r\n")
        terminal.type("\x1a")
        terminal.expect("topped")
        terminal.expect("ready> ")
        terminal.type("bg\r")
        terminal.expect("ready> ")
        terminal.type("jobs\r")
        terminal.expect("Running")
        terminal.expect("ready> ")
        terminal.type("fg\r")
        terminal.expect("sleep 1000")
        terminal.wait_for_job()
        terminal.type("\x03")
        terminal.expect("ready> ")
        terminal.type("echo status $?; stty size\r")
        terminal.expect("status 130\r\n24 80\r\n")
        terminal.expect("ready> ")
        terminal.type("exit 7\r")
        assert terminal.process.wait(60 * PATIENCE) == 7


def test_hangup(interactive_root: Path, tmp_path: Path) -> None:
    """A shell whose terminal goes away ends of SIGHUP, and its jobs with it."""
    command = [*anyarch_run("-L", str(interactive_root)), "/bin/bash"]
    settings = dict(environment(tmp_path), PS1="ready> ", TERM="dumb")
    with Terminal([*command, "--norc", "-i"], tmp_path, settings) as terminal:
        terminal.expect("ready> ")
        terminal.type("sh -c 'trap \"echo hung up > told; exit\" HUP; echo a; sleep 1000 & wait'\r")
        terminal.expect("\na\r\n")
    assert terminal.process.returncode in (-1, 129)
    # The job is told by the kernel, and may be after the shell.
    end = time.monotonic() + 30 * PATIENCE
    told = tmp_path / "told"
    while not (told.exists() and told.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    assert told.read_text() == "hung up\n"


def test_tmux(interactive_root: Path, tmp_path: Path) -> None:
    settings = dict(environment(tmp_path), TERM="xterm", SHELL="/bin/sh", PS1="$ ", ENV="")
    tmux = ["/usr/bin/tmux", "-L", "test", "-f", "/dev/null"]
    command = [*anyarch_run("-L", str(interactive_root)), *tmux]
    with Terminal([*command, "new-session", "-s", "work"], tmp_path, settings) as terminal:
        terminal.expect("[work]")  # the status line
        script = (
            "t='tmux -L test'; $t send-keys -t work 'echo $((6 * 7))' Enter\n"
            "for i in $(seq 200); do $t capture-pane -p -t work | grep -q '^42' && break\n"
            "sleep 0.1; done; $t capture-pane -p -t work | grep '^42'\n"
            "$t split-window -t work 'exec sleep 100'; $t list-panes -t work | wc -l\n"
            "for i in $(seq 50); do [ \"$($t display -p -t work '#{pane_current_command}')\" = \\\n"
            "sleep ] && break; sleep 0.1; done; $t display -p -t work '#{pane_current_command}'\n"
            "$t kill-server; echo $?"
        )
        _, output = run(interactive_root, script, tmp_path, 300)
        assert output.split("\n") == ["42", "2", "sleep", "0"]
        terminal.expect("[server exited]")
        assert terminal.process.wait(60 * PATIENCE) == 1  # as tmux says that
