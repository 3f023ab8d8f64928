"""Damage to ELF files: headers, program headers and sizes, as an attacker or a bad disk would."""

from __future__ import annotations

import random
import struct
from typing import Final

HEADER: Final = 64
ENTRY: Final = 56  # bytes of a program header
EXTREMES: Final = (
    0, 1, 7, 0xFFF, 0x1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 37, (1 << 38) - 4096, 1 << 38,
    1 << 40, (1 << 47) - 4096, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1,
)  # fmt: skip


def damage(original: bytes, source: random.Random) -> bytes:
    """One to three changes; the code itself stays as it is, so that nothing random runs."""
    data = bytearray(original)
    for _ in range(source.randrange(1, 4)):
        source.choice(KINDS)(data, source)
    return bytes(data)


def _segments(data: bytearray) -> list[int]:
    if len(data) < HEADER:
        return []
    start, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    places = [start + ENTRY * index for index in range(min(count, 16))]
    return [place for place in places if place + ENTRY <= len(data)]


def _header_byte(data: bytearray, source: random.Random) -> None:
    if len(data) >= HEADER:
        data[source.randrange(HEADER)] = source.randrange(256)


def _header_field(data: bytearray, source: random.Random) -> None:
    if len(data) >= HEADER:
        place = source.choice((16, 18, 24, 32, 40, 54, 56, 58, 60, 62))
        kind = "<Q" if place in (24, 32, 40) else "<H"
        size = 8 * struct.calcsize(kind)
        struct.pack_into(kind, data, place, source.choice(EXTREMES) & ((1 << size) - 1))


def _segment_field(data: bytearray, source: random.Random) -> None:
    if places := _segments(data):
        place = source.choice(places) + source.choice((8, 16, 24, 32, 40, 48))
        struct.pack_into("<Q", data, place, source.choice(EXTREMES))


def _segment_byte(data: bytearray, source: random.Random) -> None:
    if places := _segments(data):
        data[source.choice(places) + source.randrange(ENTRY)] = source.randrange(256)


def _overlap(data: bytearray, source: random.Random) -> None:
    if len(places := _segments(data)) > 1:
        one, other = source.sample(places, 2)
        address = struct.unpack_from("<Q", data, one + 16)[0]
        struct.pack_into("<Q", data, other + 16, address + 8 * source.randrange(600))


def _kind(data: bytearray, source: random.Random) -> None:
    if places := _segments(data):
        kinds = (0, 1, 2, 3, 4, 6, 7, 0x6474E551, 0x6474E552, 0x7FFFFFFF)
        struct.pack_into("<I", data, source.choice(places), source.choice(kinds))


def _truncate(data: bytearray, source: random.Random) -> None:
    near = source.choice((HEADER, HEADER + 4 * ENTRY, 4096, len(data) + 1))
    del data[source.randrange(max(1, near)) :]


def _extend(data: bytearray, source: random.Random) -> None:
    data += source.randbytes(source.choice((1, 4095, 70000)))


KINDS: Final = (
    _header_byte, _header_field, _segment_field, _segment_field, _segment_byte, _overlap, _kind,
    _truncate, _extend,
)  # fmt: skip
