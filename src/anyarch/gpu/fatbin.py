"""Reads fatbins: NVIDIA's container of PTX and machine code for several GPUs.

The format has no specification; what is here was read off files that nvcc 12 and 13 wrote. A header
(magic, version, its size, size of all entries), then entries: a header of fields and a payload that
is stored as it is, as an LZ4 block, or as a zstd frame.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from anyarch.gpu.errors import ImageError

__all__ = ["FATBIN_MAGIC", "Entry", "lz4_decompress", "read_fatbin"]

FATBIN_MAGIC: Final = b"\x50\xed\x55\xba"
_HEADER: Final = struct.Struct("<IHHQ")
# kind, version, header size, payload size, stored size, options, ISA minor and major, sm number,
# name offset, name size, flags, reserved, size when uncompressed
_ENTRY: Final = struct.Struct("<HHIQIIHHIIIQQQ")
_PTX, _ELF = 1, 2
_LZ4, _ZSTD = 0x2000, 0x8000
_ARCHITECTURE_SPECIFIC, _FAMILY_SPECIFIC = 0x100000, 0x200000
_MAX_NBYTES: Final = 1 << 32  # a damaged size must not ask for all memory


class Entry(NamedTuple):
    """PTX text or a cubin for one compute capability."""

    is_ptx: bool
    capability: tuple[int, int]
    flags: int
    stored: bytes
    nbytes: int

    def __str__(self) -> str:
        suffix = "a" if self.flags & _ARCHITECTURE_SPECIFIC else ""
        suffix = "f" if self.flags & _FAMILY_SPECIFIC else suffix
        prefix = "PTX compute" if self.is_ptx else "machine code sm"
        return f"{prefix}_{self.capability[0]}{self.capability[1]}{suffix}"

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a GPU of that capability takes it."""
        if self.flags & _ARCHITECTURE_SPECIFIC:
            return self.capability == capability
        if self.is_ptx and not self.flags & _FAMILY_SPECIFIC:
            return self.capability <= capability
        return self.capability[0] == capability[0] and self.capability[1] <= capability[1]

    def payload(self) -> bytes:
        """The text or the cubin; ImageError if it is damaged."""
        if self.flags & _LZ4:
            return lz4_decompress(self.stored, self.nbytes)
        if self.flags & _ZSTD:
            return _zstd_decompress(self.stored, self.nbytes)
        return self.stored


def read_fatbin(data: bytes) -> list[Entry]:
    """The PTX and machine code, in the file's order; entries of other kinds are left out."""
    entries: list[Entry] = []
    position = 0
    while data[position : position + 4] == FATBIN_MAGIC:  # relocatable code holds several
        if len(data) < position + _HEADER.size:
            raise ImageError("the fatbin ends within its header")
        _, _, header_nbytes, nbytes = _HEADER.unpack_from(data, position)
        position += header_nbytes
        if header_nbytes < _HEADER.size or position + nbytes > len(data):
            raise ImageError(f"the fatbin ends {position + nbytes - len(data):,} bytes early")
        entries += _read_entries(data[position : position + nbytes])
        position += nbytes
    return entries


def _read_entries(data: bytes) -> list[Entry]:
    entries: list[Entry] = []
    position = 0
    while position + _ENTRY.size <= len(data):
        kind, _, header, size, stored, _, _, _, number, _, _, flags, _, nbytes = _ENTRY.unpack_from(
            data, position
        )
        start = position + header
        if header < _ENTRY.size or start + size > len(data):
            raise ImageError(f"fatbin entry {len(entries)} is larger than the fatbin")
        if kind in (_PTX, _ELF):
            if nbytes > _MAX_NBYTES:
                raise ImageError(f"fatbin entry {len(entries)} claims to hold {nbytes:,} bytes")
            payload = data[start : start + (stored or size)]
            entries.append(Entry(kind == _PTX, divmod(number, 10), flags, payload, nbytes))
        position = start + size
    return entries


def lz4_decompress(data: bytes, nbytes: int) -> bytes:
    """An LZ4 block that holds `nbytes`; ImageError if it is damaged.

    https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
    """
    out = bytearray()
    position = 0
    try:
        while position < len(data):
            token = data[position]
            position += 1
            literals, position = _extended(data, position, token >> 4)
            if position + literals > len(data):
                raise IndexError
            out += data[position : position + literals]
            position += literals
            if position == len(data):  # the last sequence has no match
                break
            distance = data[position] | data[position + 1] << 8
            length, position = _extended(data, position + 2, token & 15)
            length += 4
            if not 0 < distance <= len(out) or len(out) + length > nbytes:
                raise IndexError
            start = len(out) - distance
            if distance >= length:
                out += out[start : start + length]
            else:  # the match overlaps what it makes
                piece = out[start:]
                out += (piece * (length // distance + 1))[:length]
    except IndexError:
        raise ImageError("LZ4 data in the fatbin is damaged") from None
    if len(out) != nbytes:
        raise ImageError(f"LZ4 data in the fatbin has {len(out):,} bytes, expected {nbytes:,}")
    return bytes(out)


def _extended(data: bytes, position: int, length: int) -> tuple[int, int]:
    """A length of four bits and the bytes that continue it."""
    if length == 15:
        while True:
            more = data[position]
            position += 1
            length += more
            if more != 255:
                break
    return length, position


def _zstd_decompress(data: bytes, nbytes: int) -> bytes:
    zstd = _zstd()
    try:
        out: bytes = zstd.ZstdDecompressor().decompress(data, nbytes + 1)
    except zstd.ZstdError as error:
        raise ImageError(f"zstd data in the fatbin is damaged: {error}") from None
    if len(out) != nbytes:
        raise ImageError(f"zstd data in the fatbin has {len(out):,} bytes, expected {nbytes:,}")
    return out


def _zstd() -> Any:
    from importlib import import_module

    for name in ("compression.zstd", "backports.zstd"):  # Python 3.14 and later, and before
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ImageError(
        "the fatbin is compressed with zstd, which this Python does not have: "
        "pip install 'anyarch[gpu]', or compile with nvcc --compress-mode=speed"
    )
