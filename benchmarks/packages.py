"""``python -m benchmarks.packages --root ROOT``: a distribution's programs, QEMU beside anyarch.

ROOT is a folder with a guest's system, such as Debian's packages unpacked. What a root lacks is
left out. Inputs are made up here, the same in every run; output must be the same in every way.
--native adds this machine's programs of the same names: other versions, so only a rough measure.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import inputs
from benchmarks.report import Report
from benchmarks.runner import (
    GUESTS,
    NATIVE,
    Command,
    Commands,
    Way,
    available_ways,
    compare,
    engines_of,
    options_parser,
    ratios,
    seconds_of,
    with_caches,
)

PYTHON_FIB: Final = """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
print(fib(30))
"""
PYTHON_JSON: Final = """
import json, sys
rows = json.load(open(sys.argv[1]))
for turn in range(8):
    text = json.dumps(rows, indent=turn, sort_keys=True)
    rows = json.loads(text)
print(len(text), sum(row["size"] for row in rows))
"""
PYTHON_DICTS: Final = """
counts = {}
for i in range(800_000):
    key = i * 7919 % 10_007
    counts[key] = counts.get(key, 0) + i
print(sum(k ^ v for k, v in sorted(counts.items(), key=lambda item: (item[1], item[0]))))
"""
PERL: Final = """
my (%counts, $long);
while (<>) {
    s/(\\w+)ing\\b/$1ed/g;
    $counts{lc $_}++ for /\\w+/g;
    $long++ if /^(?:\\w+ ){6}.*?s.*n$/;
}
print join(" ", map { "$_=$counts{$_}" } sort keys %counts), " $long\\n";
"""
SQL: Final = """
create table sales (id integer primary key, shop integer, amount integer, note text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000)
    insert into sales select i, i * 7919 % 101, i * 31 % 977, 'note ' || (i % 1000) from n;
create index by_note on sales (note, amount);
select shop, count(*), sum(amount), max(note) from sales group by shop order by 3, 1 limit 5;
select count(*) from sales a join sales b on a.note = b.note and a.amount = b.amount + 1;
select sum(length(note)) from sales where note like '%9_';
"""
LUA: Final = """
local words, n = {}, 0
for i = 1, 900000 do
    local key = "k" .. (i * 7919 % 5003)
    words[key] = (words[key] or 0) + i % 13
end
for key, value in pairs(words) do n = n + value * #key end
local function queens(row, columns, left, right)
    if row == 0 then return 1 end
    local found, free = 0, columns & ~left & ~right
    while free ~= 0 do
        local bit = free & -free
        free = free ~ bit
        found = found + queens(row - 1, columns ~ bit, (left | bit) << 1, (right | bit) >> 1)
    end
    return found
end
print(n, queens(9, 511, 0, 0))
"""
JQ: Final = """
group_by(.shop)
| map({shop: .[0].shop, size: map(.size) | add, names: map(.name) | unique | length})
| sort_by(.size) | .[0:5]
"""
BASH: Final = """
declare -A seen
for ((i = 0; i < 40000; i++)); do
    key=$((i * 7919 % 257))
    seen[$key]=$((${seen[$key]:-0} + i))
    [[ $key == *7 ]] && word=${word:0:20}x$key
done
echo "${#seen[@]} ${seen[128]} ${word//x/-}"
"""
AWK: Final = """
{ for (i = 1; i <= NF; i++) { count[$i]++; size += length($i) } sub(/the/, "The"); last = $0 }
END { for (word in count) n += count[word] * count[word]; print NR, size, n, last }
"""
PASSWORD: Final = (
    *("-keylen", "32", "-kdfopt", "digest:SHA512", "-kdfopt", "pass:river"),
    *("-kdfopt", "salt:stone", "-kdfopt", "iter:400000"),
)
KEY: Final = ("-K", "00112233445566778899aabbccddeeff" * 2, "-iv", "0f0e0d0c0b0a0908" * 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A program of the root (the last one that matches the pattern) and its arguments.

    An argument ``@name`` becomes the path of that input. ``host`` is what is run natively, where
    that is not the program of the same name with the same arguments.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    host: tuple[str, ...] = ()


def _python(name: str, text: str, *arguments: str) -> Case:
    # Isolated from our environment, and writing no bytecode into the root.
    options = ("-I", "-B", "-c", text, *arguments)
    return Case(name, "usr/bin/python3.[0-9]*[0-9]", options, ("python3", *options))


CASES: Final = (
    _python("python: calls", PYTHON_FIB),
    _python("python: json", PYTHON_JSON, "@rows.json"),
    _python("python: dicts", PYTHON_DICTS),
    Case("perl", "usr/bin/perl", ("-e", PERL, *(["@text"] * 3))),
    Case("sqlite3", "usr/bin/sqlite3", (":memory:", SQL)),
    Case("lua", "usr/bin/lua5.4", ("-e", LUA)),
    Case("jq", "usr/bin/jq", (JQ, *(["@rows.json"] * 4))),
    Case("bash", "usr/bin/bash", ("-c", BASH)),
    Case("mawk", "usr/bin/mawk", (AWK, "@long")),
    Case("sort", "usr/bin/sort", ("--parallel=1", "-k2,2", "-k1,1r", "@long")),
    Case("xz", "usr/bin/xz", ("-c", "-6", "-T1", *(["@text"] * 2))),
    Case("zstd", "usr/bin/zstd", ("-q", "-c", "-12", "--single-thread", *(["@text"] * 3))),
    Case("bzip2", "usr/bin/bzip2", ("-c", "@long")),
    Case("openssl: cipher", "usr/bin/openssl", ("enc", "-aes-256-cbc", *KEY, "-in", "@bytes")),
    Case("openssl: hash", "usr/bin/openssl", ("kdf", *PASSWORD, "PBKDF2")),
    Case("openssl: prime", "usr/bin/openssl", ("prime", str(2**2203 - 1))),
    Case("sha256sum", "usr/bin/sha256sum", tuple(["@bytes"] * 3)),
    Case("flac", "usr/bin/flac", ("-s", "-c", "-8", "@sound.wav")),
    Case("lame", "usr/bin/lame", ("--silent", "-t", "@sound.wav", "-")),
    Case(
        "gcc -O2",
        "usr/libexec/gcc/*/*/cc1",
        ("-quiet", "-O2", "@program.c", "-o", "-"),
        ("gcc", "-S", "-O2", "@program.c", "-o", "-"),
    ),
)


def commands(case: Case, program: Path, ways: list[Way], root: Path, folder: Path) -> Commands:
    """How each way runs a case; native only where this machine has the program."""

    def fill(arguments: tuple[str, ...]) -> list[str]:
        return [
            str(inputs.make(folder, text[1:])) if text.startswith("@") else text
            for text in arguments
        ]

    found = {}
    for way in ways:
        if way.name == NATIVE.name:
            name, *arguments = case.host or (program.name, *case.arguments)
            if path := shutil.which(name):
                line = (path, *fill(tuple(arguments)))
                found[way.name] = Command(line, compared=False)
        else:
            line = (*way.prefix, "-L", str(root), str(program), *fill(case.arguments))
            found[way.name] = Command(line, way.cache)
    return found


def main() -> int:
    """Exit status 0, 1 when a run fails or outputs differ, 2 for wrong arguments."""
    parser = options_parser("benchmarks.packages", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with a guest's system")
    parser.add_argument("--native", action="store_true", help="also this machine's programs")
    options = parser.parse_args()
    root = options.root.resolve()
    programs = {case: sorted(root.glob(case.program))[-1:] for case in CASES}
    if missing := [case.name for case, found in programs.items() if not found]:
        print(f"not in {root}: {', '.join(missing)}", file=sys.stderr)
    guest = GUESTS[options.guest]
    ways = [
        way
        for way in with_caches(available_ways(engines_of(options), guest))
        if way.target is guest.target or (way is guest.natives[0] and options.native)
    ]
    names = [way.name for way in ways]
    report = Report(names, ratios(names))
    with tempfile.TemporaryDirectory(prefix="anyarch-inputs-") as folder:
        cases = {
            case.name: partial(commands, case, found[0], ways, root, Path(folder))
            for case, found in programs.items()
            if found
        }
        return compare(options, cases, report, seconds_of(options))


if __name__ == "__main__":
    sys.exit(main())
