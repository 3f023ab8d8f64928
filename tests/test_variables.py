"""Where debug variables are, as LLVM tells."""

from __future__ import annotations

import pytest

from anyarch.emit.compile import compile_blob
from anyarch.emit.variables import NO_REGISTER, STACK_POINTER, Location, decode, read_variables
from anyarch.errors import CompileError

_TEXT = """
target triple = "x86_64-unknown-linux-gnu"
!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!4}
!0 = distinct !DICompileUnit(language: DW_LANG_C, file: !1, isOptimized: true, runtimeVersion: 0,
  emissionKind: FullDebug)
!1 = !DIFile(filename: "guest", directory: "")
!2 = distinct !DISubprogram(name: "f", file: !1, scope: !1, type: !3, unit: !0,
  spFlags: DISPFlagDefinition)
!3 = !DISubroutineType(types: !5)
!4 = !{i32 2, !"Debug Info Version", i32 3}
!5 = !{}
!6 = !DIBasicType(size: 64, encoding: DW_ATE_unsigned)
!7 = !DILocation(line: 0, scope: !2)
!8 = !DILocalVariable(name: "r", arg: 1, scope: !2, file: !1, line: 1, type: !6)
!9 = !DILocalVariable(name: "r", arg: 2, scope: !2, file: !1, line: 2, type: !6)
!10 = !DILocation(line: 3, scope: !2)
define void @before() { ret void }
define i64 @f(i64 %a, ptr %p) !dbg !2 {
  %r = alloca i64
  #dbg_declare(ptr %r, !8, !DIExpression(), !7)
  %s = alloca i64
  #dbg_declare(ptr %s, !9, !DIExpression(), !7)
  store i64 %a, ptr %r
  store i64 77, ptr %s
  store volatile i64 0, ptr %p, !dbg !10
  call void asm sideeffect "", "~{rdi}"()
  store volatile i64 0, ptr %p, !dbg !10
  %b = load i64, ptr %r
  ret i64 %b
}
"""


def test_a_variable_is_in_an_argument_and_then_elsewhere() -> None:
    blob = compile_blob(_TEXT)
    start = blob.symbols["f"]
    moving, constant = blob.variables[1], blob.variables[2]
    assert moving[0] == (start, moving[0][1], Location(5, 0))  # rdi
    assert all(low < high <= len(blob.code) for low, high, _ in moving)
    assert {where.register for _, _, where in moving} > {5}
    assert {where for _, _, where in constant} == {Location(NO_REGISTER, 77)}


@pytest.mark.parametrize(
    "expression, location",
    [
        ("52", Location(2, 0)),  # reg2
        ("7270", Location(2, -16, in_memory=True)),  # breg2 -16
        ("72709f", Location(2, -16)),  # breg2 -16, stack_value
        ("9178", Location(STACK_POINTER, -8, in_memory=True)),  # fbreg -8
        ("77780623109f", Location(7, -8, in_memory=True, addend=16)),  # deref, plus_uconst 16
        ("7200103022" + "9f", Location(2, 48)),  # breg2 0, constu 48, plus
        ("720010301c" + "9f", Location(2, -48)),  # minus
        ("10e4009f", Location(NO_REGISTER, 100)),  # constu 100
        ("117f9f", Location(NO_REGISTER, -1)),  # consts -1
        ("359f", Location(NO_REGISTER, 5)),  # lit5
        ("f301559f", None),  # the value at the entry of a register
        ("72001f9f", None),
        ("31", None),
        ("", None),
    ],
)
def test_expressions(expression: str, location: Location | None) -> None:
    assert decode(bytes.fromhex(expression)) == location


def test_debug_information_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(CompileError, match="version 9"):
        read_variables(bytes((7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 8)), b"\0", b"", {})
