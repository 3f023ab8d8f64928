"""What can be loaded: PTX text, cubins, fatbins, and files of each."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from anyarch.gpu.backend import Image
from anyarch.gpu.entries import find_entries
from anyarch.gpu.errors import ImageError
from anyarch.gpu.fatbin import FATBIN_MAGIC, Entry, read_fatbin

__all__ = ["Source", "open_image", "open_images"]

Source: TypeAlias = str | bytes | os.PathLike[str]
"""PTX text, or the path or the bytes of PTX, a cubin or a fatbin."""

_ELF_MAGIC: Final = b"\x7fELF"
# From offset 32: where program and section headers are, and how many of each.
_ELF_HEADER: Final = struct.Struct("<QQ8xH2xH")
_ELF_SECTION: Final = struct.Struct("<4xI16xQQ")
_SHT_NOBITS: Final = 8
_EM_CUDA: Final = 190
_WRAPPER_MAGIC: Final = b"\xb1\x43\x62\x46"


def open_images(sources: Sequence[Source], capability: tuple[int, int] | None) -> tuple[Image, ...]:
    """Each as `open_image` does, of different origins."""
    if not sources:
        raise ImageError("there is nothing to load")
    images = tuple(open_image(source, capability) for source in sources)
    counts = Counter(image.origin for image in images)
    return tuple(
        replace(image, origin=f"{image.origin} {number}") if counts[image.origin] > 1 else image
        for number, image in enumerate(images, 1)
    )


def open_image(source: Source, capability: tuple[int, int] | None) -> Image:
    """PTX text, the bytes or the path of PTX, a cubin or a fatbin, as an image.

    A `str` that holds a newline or `.version` is PTX text, any other is a path. Of a fatbin the
    machine code that a GPU of `capability` runs is taken where there is some, else the newest PTX;
    with None the newest PTX.
    """
    origin = "PTX text"
    if isinstance(source, str) and ("\n" in source or ".version" in source):
        return _from_ptx(source, origin)
    data: bytes
    if isinstance(source, (str, os.PathLike)):
        origin = os.fspath(source)
        try:
            with open(origin, "rb") as file:
                data = file.read()
        except OSError as error:
            raise ImageError(f"{origin}: {error.strerror}") from None
    else:
        data, origin = bytes(source), "bytes"
    if data.startswith(_ELF_MAGIC):
        if int.from_bytes(data[18:20], "little") != _EM_CUDA:
            raise ImageError(f"{origin}: an ELF file for another machine than a GPU")
        _check_cubin(data, origin)
        return Image(None, data, origin)
    if data.startswith(FATBIN_MAGIC):
        return _from_fatbin(read_fatbin(data), capability, origin)
    if data.startswith(_WRAPPER_MAGIC):
        raise ImageError(f"{origin}: a fatbin wrapper without its data; give the fatbin itself")
    try:
        text = data.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        text = ""
    if ".version" not in text:
        raise ImageError(f"{origin}: not PTX (no .version), not a cubin, not a fatbin")
    return _from_ptx(text, origin)


def _check_cubin(data: bytes, origin: str) -> None:
    """ImageError for a cubin whose headers or sections lie outside it: the driver would crash."""
    try:
        segments, sections, segment_count, count = _ELF_HEADER.unpack_from(data, 32)
        if segments + 56 * segment_count > len(data):
            raise ImageError(f"{origin}: the cubin is cut off within its program headers")
        for number in range(count):
            kind, offset, nbytes = _ELF_SECTION.unpack_from(data, sections + 64 * number)
            if kind != _SHT_NOBITS and offset + nbytes > len(data):
                raise ImageError(f"{origin}: the cubin is cut off within section {number}")
    except struct.error:
        raise ImageError(f"{origin}: the cubin is cut off within its headers") from None


def _from_ptx(text: str, origin: str) -> Image:
    return Image(text, None, origin, find_entries(text))


def _from_fatbin(entries: list[Entry], capability: tuple[int, int] | None, origin: str) -> Image:
    fitting = [entry for entry in entries if capability is None or entry.runs_on(capability)]
    texts = [entry for entry in fitting if entry.is_ptx]
    code = [entry for entry in fitting if not entry.is_ptx and capability is not None]
    if code:
        # A cubin says how large each parameter is; PTX beside it also says what it is.
        signatures = find_entries(_text(texts)) if texts else {}
        return Image(None, _newest(code).payload(), origin, signatures)
    if not texts:
        held = ", ".join(str(entry) for entry in entries) or "nothing"
        wanted = "PTX" if capability is None else f"code for sm_{capability[0]}{capability[1]}"
        raise ImageError(f"{origin}: the fatbin holds no {wanted}; it holds {held}")
    return _from_ptx(_text(texts), origin)


def _newest(entries: list[Entry]) -> Entry:
    return max(entries, key=lambda entry: entry.capability)


def _text(entries: list[Entry]) -> str:
    try:
        return _newest(entries).payload().rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise ImageError(f"the PTX in the fatbin is no text: {error}") from None
