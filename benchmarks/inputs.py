"""Input files for other people's programs, made up: the same bytes on every machine."""

from __future__ import annotations

import json
import random
import struct
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

WORDS: Final = (
    "the and of to river stone winter summer going making under over light dark after before "
    "house water running hill cloud seven eight nine north south early late singing letter"
).split()


def make(folder: Path, name: str) -> Path:
    """The path of an input, which is made where it is not there yet."""
    path = folder / name
    if not path.exists():
        MAKERS[name](path, random.Random(name))
    return path


def make_text(path: Path, choose: random.Random, count: int = 20_000) -> None:
    """Lines of eight words, some of them numbered: 48 bytes a line."""
    lines = []
    for i in range(count):
        words = [choose.choice(WORDS) for _ in range(8)]
        if i % 3 == 0:
            words[i % 8] += str(choose.randrange(10_000))
        lines.append(" ".join(words))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def make_bytes(path: Path, choose: random.Random) -> None:
    """Bytes without order."""
    path.write_bytes(choose.randbytes(40 << 20))


def make_rows(path: Path, choose: random.Random) -> None:
    """A JSON array of small objects."""
    rows = [
        {
            "name": f"{choose.choice(WORDS)} {choose.randrange(500)}",
            "shop": choose.randrange(40),
            "size": choose.randrange(1000),
            "tags": [choose.choice(WORDS) for _ in range(3)],
            "price": choose.randrange(100_000) / 100,
        }
        for _ in range(6000)
    ]
    path.write_text(json.dumps(rows), encoding="ascii")


def make_sound(path: Path, choose: random.Random) -> None:
    """Fifteen seconds of two triangle waves that swell, and some noise."""
    samples = []
    for i in range(15 * 44_100):
        for period in (100, 147):
            triangle = abs(i % period - period // 2) * 400
            samples.append(triangle * (i % 20_000) // 20_000 + choose.getrandbits(7) - 10_000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def make_program(path: Path, choose: random.Random) -> None:
    """A thousand lines of C: functions with loops, switches and structures that call each other."""
    lines = ["struct item { long key; int kind; double weight; struct item *next; };"]
    for i in range(53):
        a, b, c = (choose.randrange(3, 1000) for _ in range(3))
        callee = f"f{choose.randrange(i)}" if i else "f0"
        lines += f"""
static const int table{i}[] = {{
    {a}, {b}, {c},
    {a + b}, {b + c}, {a + c},
}};

long f{i}(struct item *item, long n)
{{
    long sum = n % {c};
    for (; item && n > 0; n--, item = item->next) {{
        switch (item->kind % {3 + i % 4}) {{
        case 0: sum += item->key >> {1 + i % 7}; break;
        case 1: sum ^= item->key * table{i}[n % 6]; break;
        case 2: item->weight = item->weight * 0.5 + (double)sum; break;
        default: sum -= {callee}(item->next, n / 2);
        }}
    }}
    return sum;
}}""".splitlines()
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


MAKERS: Final[dict[str, Callable[[Path, random.Random], None]]] = {
    "text": make_text,
    "long": partial(make_text, count=200_000),
    "bytes": make_bytes,
    "rows.json": make_rows,
    "sound.wav": make_sound,
    "program.c": make_program,
}
