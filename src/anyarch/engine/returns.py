"""Where blocks return to: the calls that they made last, so that nobody looks up the pc.

A block that calls notes a link of its record's that leads to the block behind the call. What
returns, a block or a region that a block has led to, takes the last one: where its pc is the one
returned to, control goes on there. Code that regions run notes 0: its return is one to them. Else,
too, who returns leaves its host frame, and whoever is below compares, and looks the pc up.

So nothing has to be right: a ring that is too short, a longjmp, a stack that was thrown away cost
a lookup each. Native code begins with an empty ring, for links lie in records, which are dropped
where no thread is inside.
"""

from __future__ import annotations

from typing import Final

from anyarch.host.context import FIELDS

_RING, _NBYTES = FIELDS["returns"]
_NEXT: Final = FIELDS["returns_next"][0]
_LINK_PC: Final = 16  # of a link: where the pc is


def clear_text() -> str:
    """Forget all, in `%context`."""
    return (
        f"  %rr.all = getelementptr i8, ptr %context, i64 {_RING}\n"
        f"  store <{_NBYTES // 8} x i64> zeroinitializer, ptr %rr.all, align 8\n"
    )


def note_text(link: str, name: str = "rr", *, only_if: str = "true") -> str:
    """Note a call that comes back through ``link``, a pointer; ``only_if`` it is one."""
    return (
        f"  %{name}.n = getelementptr i8, ptr %context, i64 {_NEXT}\n"
        f"  %{name}.at = load i64, ptr %{name}.n, align 8\n"
        f"  %{name}.e = getelementptr i8, ptr %context, i64 %{name}.at\n"
        f"  %{name}.r = getelementptr i8, ptr %{name}.e, i64 {_RING}\n"
        f"  store ptr {link}, ptr %{name}.r, align 8\n"
        f"  %{name}.step = select i1 {only_if}, i64 8, i64 0\n"
        f"  %{name}.on = add i64 %{name}.at, %{name}.step\n"
        f"  %{name}.new = and i64 %{name}.on, {_NBYTES - 1}\n"
        f"  store i64 %{name}.new, ptr %{name}.n, align 8\n"
    )


def return_text(pc: str, name: str = "rr") -> str:
    """End of a function of handlers' type: go on where the last call said, if that is ``pc``; else
    leave the host frame, with the pc in the context."""
    return (
        f"  %{name}.n = getelementptr i8, ptr %context, i64 {_NEXT}\n"
        f"  %{name}.at = load i64, ptr %{name}.n, align 8\n"
        f"  %{name}.off = sub i64 %{name}.at, 8\n"
        f"  %{name}.new = and i64 %{name}.off, {_NBYTES - 1}\n"
        f"  store i64 %{name}.new, ptr %{name}.n, align 8\n"
        f"  %{name}.e = getelementptr i8, ptr %context, i64 %{name}.new\n"
        f"  %{name}.r = getelementptr i8, ptr %{name}.e, i64 {_RING}\n"
        f"  %{name}.link = load ptr, ptr %{name}.r, align 8\n"
        f"  %{name}.none = icmp eq ptr %{name}.link, null\n"
        f"  br i1 %{name}.none, label %{name}.back, label %{name}.look\n"
        f"{name}.look:\n"
        f"  %{name}.pcp = getelementptr i8, ptr %{name}.link, i64 {_LINK_PC}\n"
        f"  %{name}.pc = load i64, ptr %{name}.pcp, align 8\n"
        f"  %{name}.same = icmp eq i64 %{name}.pc, {pc}\n"
        f"  br i1 %{name}.same, label %{name}.go, label %{name}.back, !prof !2\n"
        f"{name}.back:\n"
        f"  %{name}.cpc = getelementptr i8, ptr %context, i64 {FIELDS['pc'][0]}\n"
        f"  store i64 {pc}, ptr %{name}.cpc, align 8\n"
        f"  ret i32 0\n"
        f"{name}.go:\n"
        f"  %{name}.record = load ptr, ptr %{name}.link, align 8\n"
        f"  %{name}.handler = load ptr, ptr %{name}.record, align 8\n"
        f"  %{name}.result = musttail call i32 %{name}.handler"
        f"(ptr noalias %context, ptr %{name}.record, ptr %memory)\n"
        f"  ret i32 %{name}.result\n"
    )
