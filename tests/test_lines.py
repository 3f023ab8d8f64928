"""The line tables of compiled regions, against another decoder of DWARF."""

from __future__ import annotations

import io
import random

import pytest
from elftools.elf.elffile import ELFFile

from anyarch.emit import compile as compiling
from anyarch.emit.lines import read_lines
from anyarch.errors import CompileError

_HEAD = """\
define i32 @before(i32 %a) { ret i32 %a }
!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!4}
!0 = distinct !DICompileUnit(language: DW_LANG_C, file: !1, emissionKind: LineTablesOnly)
!1 = !DIFile(filename: "guest", directory: "")
!2 = distinct !DISubprogram(name: "f", file: !1, type: !3, unit: !0, spFlags: DISPFlagDefinition)
!3 = !DISubroutineType(types: !5)
!4 = !{i32 2, !"Debug Info Version", i32 3}
!5 = !{}
"""


def _text(lines: list[int]) -> str:
    stores = "\n".join(
        f"  store volatile i8 {line & 127}, ptr %p, align 1, !dbg !{index}\n"
        + "  fence seq_cst\n" * (line % 3)
        for index, line in enumerate(lines, 10)
    )
    locations = "\n".join(
        f"!{index} = !DILocation(line: {line}, scope: !2)" for index, line in enumerate(lines, 10)
    )
    return f"{_HEAD}{locations}\ndefine void @f(ptr %p) !dbg !2 {{\n{stores}\n  ret void\n}}\n"


def _expected(elf: bytes) -> list[tuple[int, int]]:
    information = ELFFile(io.BytesIO(elf)).get_dwarf_info(relocate_dwarf_sections=True)
    (unit,) = information.iter_CUs()
    program = information.line_program_for_CU(unit)
    assert program is not None
    states = [entry.state for entry in program.get_entries()]
    return [(s.address, s.line) for s in states if s is not None and not s.end_sequence]


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_those_of_another_decoder(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(seed)
    objects: list[bytes] = []
    make = compiling.compile_object

    def keep(text: str, *, opt: int) -> bytes:
        objects.append(make(text, opt=opt))
        return objects[-1]

    monkeypatch.setattr(compiling, "compile_object", keep)
    lines = [source.choice((1, 5, source.randrange(100_000))) for _ in range(150)]
    blob = compiling.compile_blob(_text(lines))
    assert blob.lines == _expected(objects[0])
    assert set(lines) <= {line for _, line in blob.lines}


def test_a_table_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(CompileError, match="version 9"):
        read_lines(bytes((4, 0, 0, 0, 9, 0, 0, 0)), {})
