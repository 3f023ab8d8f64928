"""Register files: the declared layout of all architectural state.

Offsets are in bytes from the start of the guest's registers in the thread context. Snapshots, the
debugger and lock-step tests read this declaration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from anyarch.data import dataclass, field
from anyarch.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class RegisterFile:
    """``count`` registers of ``size`` bits each.

    ``zero`` is the index that reads as zero and ignores writes. ``shares`` names a file whose
    storage this one is another view of (AArch64: index 31 is xzr in one, sp in the other).
    """

    name: str
    count: int
    size: int
    names: tuple[str, ...] = ()
    zero: int | None = None
    shares: str | None = None

    @property
    def stride(self) -> int:
        """Distance between two registers in bytes."""
        return self.size // 8

    @property
    def nbytes(self) -> int:
        """Size of all its registers."""
        return self.count * self.stride

    def label(self, index: int) -> str:
        """The assembly name of a register."""
        return self.names[index] if self.names else f"{self.name}{index}"


@dataclass(slots=True)
class Layout:
    """Where each file lies; built once per architecture."""

    files: tuple[RegisterFile, ...]
    offsets: dict[str, int] = field(init=False)
    nbytes: int = field(init=False)
    by_name: dict[str, RegisterFile] = field(init=False)
    # What was asked for: where it is stored, None for zero registers, and its width's mask.
    _spans: dict[tuple[str, int], tuple[slice | None, int]] = field(init=False)

    def __post_init__(self) -> None:
        self._spans = {}
        self.by_name = {file.name: file for file in self.files}
        self.offsets = {}
        end = 0
        for file in self.files:
            if file.shares is not None:
                if file.shares not in self.offsets:
                    raise DefinitionError(f"register file {file.name} shares an unknown file")
                self.offsets[file.name] = self.offsets[file.shares]
                continue
            align = min(file.stride, 16)
            end = (end + align - 1) // align * align
            self.offsets[file.name] = end
            end += file.nbytes
        self.nbytes = end

    def offset(self, file: str, index: int) -> int:
        """Byte offset of a register."""
        declared = self.by_name[file]
        if not 0 <= index < declared.count:
            raise DefinitionError(f"register file {file} has no index {index}")
        return self.offsets[file] + index * declared.stride

    def span(self, file: str, index: int) -> tuple[slice | None, int]:
        """Where a register is stored, None for a zero register; and the mask of its width."""
        found = self._spans.get((file, index))
        if found is None:
            declared, start = self.by_name[file], self.offset(file, index)
            where = None if index == declared.zero else slice(start, start + declared.stride)
            found = self._spans[file, index] = where, (1 << declared.size) - 1
        return found

    def place(self, file: str, index: int) -> tuple[str, int]:
        """A register under the name of the file that holds it."""
        return self.by_name[file].shares or file, index

    def find(self, name: str) -> tuple[str, int] | None:
        """File and index of a register by its assembly name or ``file`` + number."""
        for file in self.files:
            if name in file.names:
                return file.name, file.names.index(name)
            number = name.removeprefix(file.name)
            if name.startswith(file.name) and number.isdigit() and int(number) < file.count:
                return file.name, int(number)
        return None


class State:
    """Architectural state over a flat buffer: registers, and the program counter."""

    __slots__ = ("_view", "layout", "pc")

    def __init__(self, layout: Layout, view: memoryview | None = None) -> None:
        self.layout = layout
        self._view = memoryview(bytearray(layout.nbytes)) if view is None else view
        self.pc = 0

    def get(self, file: str, index: int) -> int:
        """Value of a register; zero for the zero register."""
        where, _ = self.layout.span(file, index)
        return 0 if where is None else int.from_bytes(self._view[where], "little")

    def set(self, file: str, index: int, value: int) -> None:
        """Set a register, modulo its width; the zero register ignores it."""
        where, mask = self.layout.span(file, index)
        if where is not None:
            nbytes = where.stop - where.start
            self._view[where] = (value & mask).to_bytes(nbytes, "little")

    def file(self, name: str) -> bytes:
        """All registers of a file, as they are stored: little-endian, one after the other."""
        start = self.layout.offsets[name]
        return bytes(self._view[start : start + self.layout.by_name[name].nbytes])

    def set_file(self, name: str, data: bytes) -> None:
        """Set all registers of a file; DefinitionError for another size. What is there for the zero
        register is ignored."""
        start, declared = self.layout.offsets[name], self.layout.by_name[name]
        nbytes, zero, stride = declared.nbytes, declared.zero, declared.stride
        if len(data) != nbytes:
            raise DefinitionError(f"register file {name} has {nbytes} bytes, not {len(data)}")
        if zero is not None:
            held = start + zero * stride
            kept = self._view[held : held + stride]
            data = data[: zero * stride] + kept + data[(zero + 1) * stride :]
        self._view[start : start + nbytes] = data

    def registers(self) -> Iterator[tuple[str, int, int]]:
        """File, index and value of every register that has storage of its own."""
        for file in self.layout.files:
            if file.shares is None:
                for index in range(file.count):
                    yield file.name, index, self.get(file.name, index)

    def save(self) -> Mapping[str, object]:
        """A snapshot for :meth:`restore`."""
        return {"pc": self.pc, "registers": bytes(self._view[: self.layout.nbytes])}

    def restore(self, saved: Mapping[str, object]) -> None:
        """Set everything to a snapshot taken on the same layout."""
        data, pc = saved["registers"], saved["pc"]
        if not isinstance(data, bytes) or len(data) != self.layout.nbytes:
            raise DefinitionError("the snapshot was taken on another register layout")
        assert isinstance(pc, int)
        self._view[: self.layout.nbytes] = data
        self.pc = pc
