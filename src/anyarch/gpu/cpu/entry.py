"""What a worker calls: `kernel`, which runs the body that was written for a warp."""

from __future__ import annotations

from typing import Final

from anyarch.gpu.cpu.records import LAUNCH, WORKER
from anyarch.gpu.cpu.rounds import COMMON_NBYTES, Record, Rounds

__all__ = ["FIBRE", "blocks_text", "rounds_text"]


def _field(result: str, record: str, offset: int, type_: str = "i32") -> str:
    return (
        f"%{result}.p = getelementptr i8, ptr %{record}, i64 {offset}\n"
        f"  %{result} = load {type_}, ptr %{result}.p, !invariant.load !2"
    )


# A kernel whose warps wait as fibres is called for each of them.
FIBRE: Final = f"""
define void @kernel(ptr %worker, ptr %launch, ptr %base, i32 %warp) #0 {{
  %x.p = getelementptr i8, ptr %worker, i64 {WORKER["ctaid"]}
  %x = load i32, ptr %x.p
  %y.p = getelementptr i8, ptr %worker, i64 {WORKER["ctaid"] + 4}
  %y = load i32, ptr %y.p
  %z.p = getelementptr i8, ptr %worker, i64 {WORKER["ctaid"] + 8}
  %z = load i32, ptr %z.p
  call void @body(ptr %worker, ptr %launch, ptr %base, i32 %warp, i32 %x, i32 %y, i32 %z)
  ret void
}}
"""

# Any other runs whole blocks in a loop, from which LLVM can move what is the same for all.
_HEAD: Final = f"""
define void @kernel(ptr %worker, ptr %launch, ptr %base, i64 %first, i64 %count) #0 {{
entry:
  ALLOCAS
  {_field("gx", "launch", LAUNCH["grid"])}
  {_field("gy", "launch", LAUNCH["grid"] + 4)}
  %wide.x = zext i32 %gx to i64
  %wide.y = zext i32 %gy to i64
  %first.x.w = urem i64 %first, %wide.x
  %rows = udiv i64 %first, %wide.x
  %first.y.w = urem i64 %rows, %wide.y
  %first.z.w = udiv i64 %rows, %wide.y
  %first.x = trunc i64 %first.x.w to i32
  %first.y = trunc i64 %first.y.w to i32
  %first.z = trunc i64 %first.z.w to i32
  %x.p = getelementptr i8, ptr %worker, i64 {WORKER["ctaid"]}
  %y.p = getelementptr i8, ptr %worker, i64 {WORKER["ctaid"] + 4}
  %z.p = getelementptr i8, ptr %worker, i64 {WORKER["ctaid"] + 8}
  %warp.p = getelementptr i8, ptr %worker, i64 {WORKER["warp"]}
  %local.p = getelementptr i8, ptr %worker, i64 {WORKER["local"]}
  {_field("locals", "worker", WORKER["local_start"], "i64")}
  br label %block
block:
  %n = phi i64 [ 0, %entry ], [ %n.next, %next ]
  %x = phi i32 [ %first.x, %entry ], [ %x.next, %next ]
  %y = phi i32 [ %first.y, %entry ], [ %y.next, %next ]
  %z = phi i32 [ %first.z, %entry ], [ %z.next, %next ]
  store volatile i32 %x, ptr %x.p
  store volatile i32 %y, ptr %y.p
  store volatile i32 %z, ptr %z.p
"""
_TAIL: Final = """
next:
  %n.next = add i64 %n, 1
  %x.more = add i32 %x, 1
  %x.over = icmp eq i32 %x.more, %gx
  %x.next = select i1 %x.over, i32 0, i32 %x.more
  %x.carry = zext i1 %x.over to i32
  %y.more = add i32 %y, %x.carry
  %y.over = icmp eq i32 %y.more, %gy
  %y.next = select i1 %y.over, i32 0, i32 %y.more
  %y.carry = zext i1 %y.over to i32
  %z.next = add i32 %z, %y.carry
  %more = icmp ult i64 %n.next, %count
  br i1 %more, label %block, label %end
end:
  ret void
}
"""


_WARPS: Final = """\
  br label %warp
warp:
  %w = phi i32 [ 0, %block ], [ %w.next, %warp ]
  store volatile i32 %w, ptr %warp.p
  call void @body(ptr %worker, ptr %launch, ptr %base, i32 %w, i32 %x, i32 %y, i32 %z)
  %w.next = add i32 %w, 1
  %more.warps = icmp ult i32 %w.next, FLOWS
  br i1 %more.warps, label %warp, label %next
"""


def blocks_text(flows: int) -> str:
    """`kernel` for warps that do not wait for each other, `flows` in a block."""
    return _HEAD.replace("ALLOCAS", "") + _WARPS.replace("FLOWS", str(flows)) + _TAIL


def rounds_text(rounds: Rounds, record: Record, flows: int, local_nbytes: int) -> str:
    """`kernel` for warps that run in rounds; each has `local_nbytes` of local memory."""
    allocas = [
        f"%records = alloca [{flows * record.nbytes} x i8], align 64",
        f"%common = alloca [{COMMON_NBYTES} x i8], align 64",
    ]
    if rounds.lockstep:
        lines = _lockstep(rounds, record, flows, local_nbytes)
    else:
        allocas.append(f"%places = alloca [{flows} x i32], align 64")
        lines = _loose(rounds, record, flows, local_nbytes)
    body = "\n".join("  " * (not line.endswith(":")) + line for line in lines)
    return _HEAD.replace("ALLOCAS", "\n  ".join(allocas)) + body + _TAIL


def _step(record: Record, w: str, resume: str, suffix: str, local_nbytes: int) -> list[str]:
    """Run a warp from one barrier to the next, which is the result %to."""
    lines = [
        f"store volatile i32 {w}, ptr %warp.p",
        f"%wide{suffix} = zext i32 {w} to i64",
        f"%from{suffix} = mul i64 %wide{suffix}, {record.nbytes}",
        f"%record{suffix} = getelementptr i8, ptr %records, i64 %from{suffix}",
    ]
    if local_nbytes:
        lines += [
            f"%mine{suffix} = mul i64 %wide{suffix}, {local_nbytes}",
            f"%local{suffix} = add i64 %locals, %mine{suffix}",
            f"store i64 %local{suffix}, ptr %local.p",
        ]
    who = f"i32 {w}, i32 %x, i32 %y, i32 %z, i32 {resume}"
    lines.append(
        f"%to{suffix} = call i32 @body(ptr %worker, ptr %launch, ptr %base, {who}, "
        f"ptr %record{suffix}, ptr %common)"
    )
    return lines


def _lockstep(rounds: Rounds, record: Record, flows: int, local_nbytes: int) -> list[str]:
    """A loop for each barrier."""
    lines = ["br label %enter.0"]
    for number in range(rounds.end):
        s = f".{number}"
        lines += [
            f"enter{s}:",
            f"br label %loop{s}",
            f"loop{s}:",
            f"%w{s} = phi i32 [ 0, %enter{s} ], [ %w.next{s}, %loop{s} ]",
            *_step(record, f"%w{s}", str(number), s, local_nbytes),
            f"%w.next{s} = add i32 %w{s}, 1",
            f"%more{s} = icmp ult i32 %w.next{s}, {flows}",
            f"br i1 %more{s}, label %loop{s}, label %done{s}",
            f"done{s}:",
        ]
        follows = rounds.follows[number]
        kept = {r for n in follows if n != rounds.end for r in rounds.kept[n]}
        for register in sorted(kept & rounds.common, key=rounds.flow.number):
            for type_, place in record.places(register, (), True):
                name = f"common{s}.{place}"
                lines += [
                    f"%{name}.from = getelementptr i8, ptr %common, i64 "
                    f"{place + COMMON_NBYTES // 2}",
                    f"%{name} = load {type_}, ptr %{name}.from, align 8",
                    f"%{name}.to = getelementptr i8, ptr %common, i64 {place}",
                    f"store {type_} %{name}, ptr %{name}.to, align 8",
                ]
        labels = {n: "%next" if n == rounds.end else f"%enter.{n}" for n in follows}
        cases = " ".join(f"i32 {n}, label {labels[n]}" for n in follows[:-1])
        lines.append(f"switch i32 %to{s}, label {labels[follows[-1]]} [{cases}]")
    return lines


def _loose(rounds: Rounds, record: Record, flows: int, local_nbytes: int) -> list[str]:
    """Rounds until all warps have ended; each goes on where it is."""
    return [
        f"store [{flows} x i32] zeroinitializer, ptr %places",
        "br label %round",
        "round:",
        "br label %loop",
        "loop:",
        "%w = phi i32 [ 0, %round ], [ %w.next, %loop ]",
        "%all = phi i1 [ true, %round ], [ %all.next, %loop ]",
        "%place = getelementptr i32, ptr %places, i32 %w",
        "%at = load i32, ptr %place",
        *_step(record, "%w", "%at", "", local_nbytes),
        "store i32 %to, ptr %place",
        f"%ended = icmp eq i32 %to, {rounds.end}",
        "%all.next = and i1 %all, %ended",
        "%w.next = add i32 %w, 1",
        f"%more.warps = icmp ult i32 %w.next, {flows}",
        "br i1 %more.warps, label %loop, label %done",
        "done:",
        "br i1 %all.next, label %next, label %round",
    ]
