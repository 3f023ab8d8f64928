"""Programs in other languages than C, with runtimes and compilers of their own: Go, Rust, Java,
LuaJIT; and FLAC and LAME, which are mostly vectors. With ANYARCH_PACKAGES=all.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import struct
import subprocess
import wave
from pathlib import Path
from typing import Final

import pytest

from tests.real.sysroot import Machine, sysroot
from tests.real.test_packages import all_packages, run

pytestmark = all_packages

TREE: Final = {
    "a/one.py": "def first(self):\n    return 'ünïcode'\n",
    "a/b/two.py": "def second(self):\n    pass\n\ndef third():\n    pass\n",
    "a/b/three.txt": "def fourth(self)\n",
    ".hidden/four.py": "def fifth(self):\n    pass\n",
}


def test_rust(machine: Machine, tmp_path: Path) -> None:
    root = sysroot(machine.debian, "bash", "coreutils", "fd-find", "ripgrep")
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    status, output = run(
        root,
        "fdfind -e py | sort; fdfind -H four; fdfind -t d | sort | xargs\n"
        r"rg -n --no-heading --sort path 'def (\w+)\(self' -r '$1'; rg -c ünï a; rg -uu -l fifth"
        "\nrg -q nothing; echo $?; seq 200000 | rg -c '7.*7'",
        tmp_path,
        300,
    )
    assert output.split("\n") == [
        "a/b/two.py",
        "a/one.py",
        ".hidden/four.py",
        "a/ a/b/",
        "a/b/three.txt:1:fourth)",
        "a/b/two.py:1:second):",
        "a/one.py:1:first):",
        "a/one.py:1",
        ".hidden/four.py",
        "1",
        str(sum(bool(re.search("7.*7", str(n))) for n in range(1, 200_001))),
    ]
    assert status == 0


LUA: Final = """
local ffi = require("ffi")
ffi.cdef[[double sqrt(double);]]
local composite, primes = {}, 0
for i = 2, 500000 do
    if not composite[i] then
        primes = primes + 1
        for j = i * i, 500000, i do composite[j] = true end
    end
end
local roots, sum = ffi.new("double[?]", 1000), 0
for i = 0, 999 do roots[i] = ffi.C.sqrt(i) end
for turn = 1, 300 do for i = 0, 999 do sum = sum + roots[i] * turn end end
local words = {}
for i = 1, 50000 do words[i] = string.format("%x", i * 2654435761 % 2^32) end
table.sort(words)
local steps = coroutine.wrap(function() for i = 1, 1e5 do coroutine.yield(i) end end)
local counted = 0
for i = 1, 1e5 do counted = counted + steps() end
print(jit.arch, primes, string.format("%.5f", sum), words[1], words[#words], counted)
print(pcall(function() local nothing; return nothing.field end))
"""


def test_luajit(machine: Machine, tmp_path: Path) -> None:
    """Its traces are written, linked and unlinked while they run."""
    if machine.debian == "riscv64":
        pytest.skip("Debian has no LuaJIT for riscv64")
    root = sysroot(machine.debian, "bash", "luajit")
    (tmp_path / "program.lua").write_text(LUA)
    status, output = run(root, "exec luajit program.lua", tmp_path, 300)
    roots, total = [math.sqrt(n) for n in range(1000)], 0.0
    for turn in range(1, 301):
        for root_of in roots:
            total += root_of * turn
    words = sorted(f"{n * 2654435761 % 2**32:x}" for n in range(1, 50_001))
    assert output.split("\n") == [
        f"arm64\t41538\t{total:.5f}\t{words[0]}\t{words[-1]}\t5000050000",
        "false\tprogram.lua:21: attempt to index local 'nothing' (a nil value)",
    ]
    assert status == 0


JAVA: Final = """
import java.util.*;
import java.util.stream.*;
public class Program {
    static int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
    public static void main(String[] none) throws Exception {
        System.out.println(System.getProperty("os.arch") + " " + fibonacci(27));
        Map<String, Integer> counts = new TreeMap<>();
        for (int i = 0; i < 50000; i++) counts.merge("k" + i % 1000, i % 7, Integer::sum);
        System.out.println(counts.values().stream().mapToInt(x -> x).sum());
        Thread[] threads = new Thread[4];
        long[] sums = new long[4];
        for (int i = 0; i < 4; i++) {
            int own = i;
            threads[i] = new Thread(() -> {
                for (int j = 0; j < 200000; j++) sums[own] += j ^ own;
            });
            threads[i].start();
        }
        for (Thread each : threads) each.join();
        System.out.println(Arrays.stream(sums).sum());
        try { Object nothing = null; nothing.toString(); }
        catch (NullPointerException e) { System.out.println("caught"); }
        try { int[] few = new int[2]; few[none.length + 5] = 1; }
        catch (ArrayIndexOutOfBoundsException e) { System.out.println(e.getMessage()); }
        System.out.println(IntStream.range(0, 50000).parallel().mapToDouble(Math::sqrt)
            .map(Math::floor).sum() + " " + new java.math.BigInteger("2").pow(100));
        System.out.println(String.format("%.6f %s", Math.sin(1e6), Double.toString(0.1f)));
    }
}
"""


def test_java(machine: Machine, tmp_path: Path) -> None:
    """The compiler of the language, written in it, runs first."""
    root = sysroot(machine.debian, "bash", "openjdk-21-jdk-headless")
    java = next(root.glob("usr/lib/jvm/java-21-openjdk-*/bin/java"))
    (tmp_path / "Program.java").write_text(JAVA)
    command = f"exec /{java.relative_to(root)} Program.java"
    status, output = run(root, command, tmp_path, 1500)
    assert output.split("\n") == [
        f"{machine.uname} 196418",
        "149997",
        "79999600000",
        "caught",
        "Index 5 out of bounds for length 2",
        f"{sum(math.isqrt(n) for n in range(50_000))}.0 {2**100}",
        "-0.349994 0.10000000149011612",
    ]
    assert status == 0


GO: Final = """
package main
import ("fmt"; "os"; "os/exec"; "os/signal"; "sort"; "strings"; "sync"; "syscall"; "time")
func main() {
    var group sync.WaitGroup
    var lock sync.Mutex
    results, total := make(chan int, 10), 0
    for i := 0; i < 100; i++ {
        group.Add(1)
        go func(own int) {
            defer group.Done()
            for j := 0; j < 1000; j++ { lock.Lock(); total += own; lock.Unlock() }
            results <- own
        }(i)
    }
    go func() { group.Wait(); close(results) }()
    got := []int{}
    for each := range results { got = append(got, each) }
    sort.Ints(got)
    fmt.Println(len(got), got[99], total)
    signals := make(chan os.Signal, 1)
    signal.Notify(signals, syscall.SIGUSR1)
    syscall.Kill(os.Getpid(), syscall.SIGUSR1)
    fmt.Println(<-signals)
    text, err := exec.Command("/bin/sh", "-c", "echo child; exit 3").CombinedOutput()
    fmt.Println(strings.TrimSpace(string(text)), err)
    func() {
        defer func() { fmt.Println(recover()) }()
        var nothing *int
        fmt.Println(*nothing)
    }()
    counted := 0
    go func() { for { counted++ } }()
    time.Sleep(50 * time.Millisecond)
    fmt.Println("preempted")
}
"""


def test_go(machine: Machine, tmp_path: Path) -> None:
    """The compiler, the runtime that it is linked with, and a program in it."""
    root = sysroot(machine.debian, "bash", "coreutils", "golang-1.24-go")
    (tmp_path / "program.go").write_text(GO)
    script = (
        "export GOFLAGS=-p=1 GOTOOLCHAIN=local GO111MODULE=off CGO_ENABLED=0\n"
        "/usr/lib/go-1.24/bin/go build -o program program.go && exec ./program"
    )
    status, output = run(root, script, tmp_path, 3600)
    assert output.split("\n") == [
        "100 99 4950000",
        "user defined signal 1",
        "child exit status 3",
        "runtime error: invalid memory address or nil pointer dereference",
        "preempted",
    ]
    assert status == 0


def test_sound(machine: Machine, tmp_path: Path) -> None:
    root = sysroot(machine.debian, "bash", "coreutils", "flac", "lame")
    samples = [
        (int(12000 * math.sin(n * 0.05) + n * n % 301), int(9000 * math.sin(n * 0.031)))
        for n in range(44_100)
    ]
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(b"".join(struct.pack("<hh", *pair) for pair in samples))
    script = (
        "flac -s -8 sound.wav -o a.flac && flac -s -t a.flac && flac -s -d a.flac -o b.wav\n"
        "cmp sound.wav b.wav && echo same; lame --quiet sound.wav c.mp3\n"
        "lame --quiet --decode c.mp3 d.wav; stat -c %s d.wav"
    )
    status, output = run(root, script, tmp_path, 300)
    assert output.split("\n") == ["same", "176444"]
    assert status == 0
    qemu = shutil.which(f"qemu-{machine.uname}")
    if qemu is not None:
        command = [qemu, "-L", str(root), str(root / "usr/bin/lame"), "--quiet"]
        subprocess.run([*command, "sound.wav", "q.mp3"], cwd=tmp_path, check=True, timeout=300)
        digests = [
            hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
            for name in ("c.mp3", "q.mp3")
        ]
        assert digests[0] == digests[1]
