"""``rt_sigprocmask`` without Python: C libraries call it around whatever signals could spoil.

The context's ``signal_mask`` is what the guest blocks; the host blocks the same, but for the
signals that are never blocked there. A thread at which signals have arrived goes to Python, which
knows what to do with them.
"""

from __future__ import annotations

from typing import Final

from anyarch.host.context import FIELDS
from anyarch.host.signalmask import ALL_SIGNALS, OPEN_SIGNALS
from anyarch.linux.numbers import HOST_NUMBERS

UNBLOCKABLE: Final = 1 << 8 | 1 << 18  # KILL, STOP
MASK_CALL: Final = HOST_NUMBERS["rt_sigprocmask"]
_SIG_BLOCK, _SIG_UNBLOCK, _SIG_SETMASK = 0, 1, 2


def host_mask(mask: int) -> int:
    """What the host blocks where the guest blocks ``mask``."""
    return mask & ~OPEN_SIGNALS


def _signed(mask: int) -> int:
    return mask - (1 << 64) if mask >> 63 else mask


def _field(name: str, result: str) -> str:
    return f"%{result} = getelementptr i8, ptr %context, i64 {FIELDS[name][0]}"


def _argument(index: int, result: str) -> str:
    place = FIELDS["abi"][0] + 2 * (index + 1)
    return f"""\
  %{result}.o.p = getelementptr i8, ptr %context, i64 {place}
  %{result}.o.16 = load i16, ptr %{result}.o.p, align 2
  %{result}.o = zext i16 %{result}.o.16 to i64
  %{result}.p = getelementptr i8, ptr %context, i64 %{result}.o
  %{result} = load volatile i64, ptr %{result}.p, align 8
"""


def _change(name: str, how: int, after: str) -> str:
    """Tell the host of the signals in ``%name``, where there are any, and go on at ``after``."""
    call = f"i64 {MASK_CALL}, i64 {how}, i64 %{name}.i, i64 0, i64 8, i64 0, i64 0"
    return f"""\
  %{name}.none = icmp eq i64 %{name}, 0
  br i1 %{name}.none, label %{after}, label %tell_{name}
tell_{name}:
  store i64 %{name}, ptr %word, align 8
  %{name}.i = ptrtoint ptr %word to i64
  %{name}.result = call i64 @aa_syscall(ptr %context, {call})
  %{name}.done = icmp eq i64 %{name}.result, 0
  br i1 %{name}.done, label %{after}, label %python
{after}:
"""


def mask_thunk_text() -> str:
    """LLVM text of ``aa_linux_mask``: 0 when it served the call, 1 when Python is to. ``touching``
    is set while it touches guest memory. What it has done before it sends the call to Python may be
    done once more."""
    return f"""
define internal i32 @aa_linux_mask(ptr %context, ptr %memory, ptr %touching) {{
entry:
  %word = alloca i64, align 8
{_argument(0, "how.64")}\
{_argument(1, "new.a")}\
{_argument(2, "old.a")}\
{_argument(3, "size")}\
  {_field("pending", "pending.p")}
  {_field("signals_held", "held.p")}
  {_field("signal_mask", "mask.p")}
  %pending = load volatile i64, ptr %pending.p, align 8
  %held = load volatile i64, ptr %held.p, align 8
  %arrived = or i64 %pending, %held
  %none = icmp eq i64 %arrived, 0
  %how = trunc i64 %how.64 to i32
  %how.good = icmp ule i32 %how, {_SIG_SETMASK}
  %size.good = icmp eq i64 %size, 8
  %good = and i1 %how.good, %size.good
  %go = and i1 %good, %none
  %before = load volatile i64, ptr %mask.p, align 8
  br i1 %go, label %look, label %python
look:
  %new.null = icmp eq i64 %new.a, 0
  br i1 %new.null, label %give, label %read
read:
  store volatile i64 1, ptr %touching, align 8
  %new.p = getelementptr i8, ptr %memory, i64 %new.a
  %new = load volatile i64, ptr %new.p, align 1
  store volatile i64 0, ptr %touching, align 8
  %added = or i64 %before, %new
  %new.not = xor i64 %new, -1
  %taken = and i64 %before, %new.not
  %is_block = icmp eq i32 %how, {_SIG_BLOCK}
  %is_unblock = icmp eq i32 %how, {_SIG_UNBLOCK}
  %taken_or_set = select i1 %is_unblock, i64 %taken, i64 %new
  %wanted = select i1 %is_block, i64 %added, i64 %taken_or_set
  %after = and i64 %wanted, {_signed(ALL_SIGNALS & ~UNBLOCKABLE)}
  %changed.all = xor i64 %before, %after
  %changed = and i64 %changed.all, {_signed(ALL_SIGNALS & ~OPEN_SIGNALS)}
  %blocked = and i64 %changed, %after
  %unblocked = and i64 %changed, %before
{_change("blocked", _SIG_BLOCK, "told_blocked")}\
{_change("unblocked", _SIG_UNBLOCK, "told")}\
  store volatile i64 %after, ptr %mask.p, align 8
  br label %give
give:
  %old.null = icmp eq i64 %old.a, 0
  br i1 %old.null, label %done, label %write
write:
  store volatile i64 1, ptr %touching, align 8
  %old.p = getelementptr i8, ptr %memory, i64 %old.a
  store volatile i64 %before, ptr %old.p, align 1
  store volatile i64 0, ptr %touching, align 8
  br label %done
done:
{_argument(6, "result")}\
  store volatile i64 0, ptr %result.p, align 8
  ret i32 0
python:
  ret i32 1
}}
"""
