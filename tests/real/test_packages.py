"""Debian's packages, dynamically linked, in a sysroot: what scripts that use them print.

The packages of the default cases are some 40 MB to download. ``ANYARCH_PACKAGES=all`` adds git,
gcc, make, Python's own tests, and more: some 300 MB, and minutes of work. ``BLESS=1`` writes the
expected outputs anew with this machine's own tools, where it has them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

import anyarch
from anyarch.engine.cache import CodeCache
from tests.real.starting import PATIENCE, anyarch_run
from tests.real.sysroot import Machine
from tests.real.test_busybox import Case, read_cases

CASES: Final = Path(__file__).with_name("package_cases.txt")
SOURCE: Final = Path(anyarch.__file__).parents[1]
PACKAGES: Final = (
    "base-files bash bzip2 coreutils diffutils findutils grep gzip jq lua5.4 mawk openssl "
    "perl-base python3.13 sed sqlite3 tar xz-utils zstd"
).split()
MANY: Final = (
    "bash coreutils dash gcc-14 git grep libc6-dev libpython3.13-testsuite make mawk perl-base "
    "python3.13 redis-server redis-tools sed"
).split()
INTERACTIVE: Final = "bash coreutils dash grep nginx ncurses-base nodejs sed tmux".split()
HEAD, ALL = read_cases(CASES)
all_packages = pytest.mark.skipif(
    os.environ.get("ANYARCH_PACKAGES") != "all", reason="only with ANYARCH_PACKAGES=all"
)


def environment(folder: Path) -> dict[str, str]:
    """What guests are given, and anyarch needs."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "TMUX_TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(SOURCE),
        "ANYARCH_CACHE": CodeCache().path,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(root: Path | None, script: str, folder: Path, timeout: float = 120) -> tuple[int, str]:
    """Status and output of a script for bash; on this machine where there is no ``root``."""
    guest = anyarch_run("-L", str(root)) if root else []
    done = subprocess.run(
        [*guest, "/bin/bash", "-c", f"unset PYTHONPATH\n{script}"],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout * PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="backslashreplace").rstrip("\n")


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_script(case: Case, root: Path, tmp_path: Path) -> None:
    if os.environ.get("BLESS"):
        pytest.skip("the outputs are being blessed")
    assert run(root, case.script, tmp_path)[1] == case.output


@pytest.mark.skipif(not os.environ.get("BLESS"), reason="only with BLESS=1")
def test_bless(tmp_path: Path) -> None:
    parts = [HEAD]
    for number, case in enumerate(ALL):
        tool = case.name.split(":")[0].split()[0].rstrip(",")
        output = case.output
        if shutil.which(
            {"coreutils": "ls", "compressors": "zstd", "lua": "lua5.4"}.get(tool, tool)
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            output = run(None, case.script, folder)[1]
        parts.append(f"{case.name}\n{case.script}\n--\n{output}")
    CASES.write_text("\n== ".join(parts) + "\n")


def test_machine_and_proc(machine: Machine, root: Path, tmp_path: Path) -> None:
    """What the guest sees of itself is the guest's, by the names that it knows."""
    _, output = run(
        root,
        "uname -m; readlink /proc/self/exe; cat /proc/self/cmdline | tr '\\0' ' '; echo\n"
        "cat /proc/self/comm; head -1 /proc/self/status 2>&1; grep -c libc.so /proc/self/maps\n"
        "head -1 /etc/os-release; [ -e /proc/self/task ] && ls /dev/null",
        tmp_path,
    )
    lines = output.split("\n")
    assert lines[:5] == [
        machine.uname,
        "/usr/bin/readlink",
        "cat /proc/self/cmdline ",
        "cat",
        "Name:\thead",
    ]
    assert int(lines[5]) >= 3
    assert "trixie" in lines[6]
    assert lines[7] == "/dev/null"


PYTHON: Final = """
import asyncio, hashlib, json, os, platform, signal, socket, sqlite3, ssl, struct, subprocess
import sys, threading
print(platform.machine(), sys.byteorder, struct.calcsize("P"), json.dumps({"a": [1.5, None]}))
print(subprocess.run(["sh", "-c", "echo out; exit 3"], capture_output=True))
results = []
threads = [threading.Thread(target=lambda n=n: results.append(sum(range(n)))) for n in (10, 100)]
[t.start() for t in threads], [t.join() for t in threads]
print(sorted(results), hashlib.sha256(b"x").hexdigest()[:8], os.path.basename(sys.executable))
async def echo():
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n"); print(await reader.read()); writer.close(); server.close()
asyncio.run(echo())
signal.signal(signal.SIGUSR1, lambda *_: print("signal")); os.kill(os.getpid(), signal.SIGUSR1)
print(sqlite3.connect(":memory:").execute("select 6 * 7").fetchone(), ssl.OPENSSL_VERSION_INFO[0])
"""


def test_python(machine: Machine, root: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("#!/usr/bin/python3.13\n" + PYTHON)
    (tmp_path / "program.py").chmod(0o755)
    status, output = run(root, "./program.py", tmp_path)
    assert output.split("\n") == [
        machine.uname + ' little 8 {"a": [1.5, null]}',
        "CompletedProcess(args=['sh', '-c', 'echo out; exit 3'], returncode=3, "
        "stdout=b'out\\n', stderr=b'')",
        "[45, 4950] 2d711642 python3.13",
        "b'HELLO\\n'",
        "signal",
        "(42,) 3",
    ]
    assert status == 0


# Tests of Python's own suite that are left out, each with the reason.
LEFT_OUT: Final = {
    "test_create_connection_ssl_1": "25 TLS handshakes at once have 60 s, which asyncio counts; "
    "two busy cores take longer, under QEMU too",
    "testSourceAddress": "one thread may close the socket before the other asks for its address",
}


@all_packages
@pytest.mark.parametrize(
    "name", "int float struct json threading subprocess socket signal mmap asyncio".split()
)
def test_pythons_own_tests(name: str, large_root: Path, tmp_path: Path) -> None:
    left_out = " ".join(f"-i {test}" for test in LEFT_OUT)
    # The limits of single tests are stretched with the limit of the whole.
    script = f"python3.13 -m test -u cpu,walltime --timeout 3600 {left_out} test_{name}"
    status, output = run(large_root, script, tmp_path, 3600)
    assert status == 0, output


@all_packages
def test_git(large_root: Path, tmp_path: Path) -> None:
    script = (
        "set -e; export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='1000000000 +0000'\n"
        "export GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE\n"
        "git config --global user.name n; git config --global user.email e@example.org\n"
        "git init -q -b main r; cd r; for i in 1 2 3; do echo $i > f$i; git add .\n"
        "git commit -qm c$i; done; git branch b HEAD~1; git merge -q b; git log --format=%H%s\n"
        "git fsck 2>&1; git gc -q; git status -s; cd ..\n"
        "git clone -q r c; git -C c rev-parse HEAD\n"
    )
    outputs = []
    for place in (large_root, None):
        folder = tmp_path / str(len(outputs))
        folder.mkdir()
        outputs.append(run(place, script, folder, 300))
    if shutil.which("git") is None:
        pytest.skip("no git here to compare with")
    assert outputs[0] == outputs[1]


@all_packages
def test_compiler_and_make(large_root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(
        '#include <stdio.h>\n#include "b.h"\nint main(void) { printf("%d\\n", twice(21)); }\n'
    )
    (tmp_path / "b.c").write_text('#include "b.h"\nint twice(int n) { return 2 * n; }\n')
    (tmp_path / "b.h").write_text("int twice(int n);\n")
    (tmp_path / "Makefile").write_text(
        "program: a.o b.o\n\tgcc-14 -o $@ $^\n%.o: %.c b.h\n\tgcc-14 -O2 -Wall -c $<\n"
    )
    status, output = run(large_root, "make -s -j2 && ./program && make", tmp_path, 600)
    assert output == "42\nmake: 'program' is up to date."
    assert status == 0


@all_packages
def test_redis(large_root: Path, tmp_path: Path) -> None:
    script = (
        "redis-server --port 0 --unixsocket $PWD/s --save '' > log 2>&1 & pid=$!\n"
        "for i in $(seq 100); do [ -S s ] && break; sleep 0.1; done; c='redis-cli -s s'\n"
        "$c set k v; $c get k; $c rpush l 1 2 3; $c lrange l 0 -1; $c eval 'return 6 * 7' 0\n"
        "$c shutdown nosave; wait $pid; echo $?"
    )
    _, output = run(large_root, script, tmp_path, 300)
    assert output.split("\n") == ["OK", "v", "3", "1", "2", "3", "42", "0"]


NODE: Final = r"""
const { Worker, isMainThread, parentPort } = require('worker_threads');
const { execFile } = require('child_process');
if (!isMainThread) {
    parentPort.on('message', n => { parentPort.postMessage(n * 2); process.exit(0); });
} else main();
async function main() {
    let sum = 0;
    for (let i = 0; i < 1e6; i++) sum = (sum * 31 + i) % 1000003;
    const point = i => ({ x: i, y: [i / 2], name: 'p' + i });
    const shapes = Array.from({ length: 20000 }, (_, i) => point(i));
    const total = shapes.filter(p => p.name.endsWith('7')).reduce((t, p) => t + p.y[0], 0);
    console.log(process.arch, sum, total, process.execPath);
    console.log(JSON.stringify(JSON.parse('{"a": [1, {"b": "x\\u00e9"}], "n": 1e100}')));
    console.log('foobar'.replace(/(o+)(?=b)/, '<$1>'), /(?<y>\d{4})$/u.exec('May 2026').groups.y,
        'aaaaaaaaaaaaaaaaaaaa'.match(/(a*)*c/), (1n << 70n) % 1000003n);
    const order = [];
    await new Promise(done => {
        setImmediate(() => { order.push('immediate'); setTimeout(done, 20); });
        process.nextTick(() => order.push('tick'));
        Promise.resolve().then(() => order.push('promise'));
    });
    console.log(order.join(' '));
    const worker = new Worker(__filename);
    worker.postMessage(21);
    console.log('worker', await new Promise(done => worker.on('message', done)));
    console.log(await new Promise(done => execFile('/bin/sh', ['-c', 'echo child; exit 3'],
        (error, out) => done([out.trim(), error.code].join(' ')))));
    const fibonacci = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 6,
        1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 30, 1, 28, 0, 32, 0, 65, 2,
        72, 4, 127, 32, 0, 5, 32, 0, 65, 1, 107, 16, 0, 32, 0, 65, 2, 107, 16, 0, 106, 11, 11]));
    console.log('wasm', new WebAssembly.Instance(fibonacci).exports.f(20));
}
"""


@all_packages
def test_node(machine: Machine, interactive_root: Path, tmp_path: Path) -> None:
    """Its compilers write code while it runs, and several threads run that."""
    (tmp_path / "program.js").write_text(NODE)
    status, output = run(interactive_root, "exec node program.js", tmp_path, 300)
    assert output.split("\n") == [
        f"{machine.node} 256782 10002000 /usr/bin/node",
        '{"a":[1,{"b":"xé"}],"n":1e+100}',
        "f<oo>bar 2026 null 443902n",
        "tick promise immediate",
        "worker 42",
        "child 3",
        "wasm 6765",
    ]
    assert status == 0
