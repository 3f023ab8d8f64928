"""Clocks, sleeping, timers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

TIME: Final = Family()

for _name, _signature in {
    "clock_gettime": "clock:enum.clock tp:struct_out.timespec",
    "clock_getres": "clock:enum.clock res:struct_out.timespec",
    "clock_settime": "clock:enum.clock tp:struct_in.timespec",
    "gettimeofday": "tv:struct_out.timeval tz:pointer",
    "settimeofday": "tv:struct_in.timeval tz:pointer",
    "adjtimex": "buf:pointer",
    "clock_adjtime": "clock:enum.clock buf:pointer",
    "getitimer": "which:enum.itimer value:struct_out.itimerval",
    "setitimer": "which:enum.itimer new:struct_in.itimerval old:struct_out.itimerval",
    "timer_settime": (
        "timerid:int flags:flags.timer new:struct_in.itimerspec old:struct_out.itimerspec"
    ),
    "timer_gettime": "timerid:int value:struct_out.itimerspec",
    "timer_getoverrun": "timerid:int",
    "timer_delete": "timerid:int",
    "timerfd_create": "clock:enum.clock flags:flags.timerfd",
    "timerfd_settime": (
        "fd:fd flags:flags.timer new:struct_in.itimerspec old:struct_out.itimerspec"
    ),
    "timerfd_gettime": "fd:fd value:struct_out.itimerspec",
    "times": "buf:struct_out.tms",
}.items():
    TIME.passed(_name, _signature, native=True)


_TIMER_ABSTIME: Final = 1


@TIME.handled(
    "nanosleep",
    "req:struct_in.timespec rem:struct_out.timespec",
    native=True,
    timeout="req",
)
def nanosleep(thread: Thread, request: int, left: int) -> int:
    """Sleep."""
    return thread.call("nanosleep", thread.timeout(request), thread.pointer(left))


@TIME.handled(
    "clock_nanosleep",
    "clock:enum.clock flags:flags.timer req:struct_in.timespec rem:struct_out.timespec",
    native=True,
    timeout="req",
)
def clock_nanosleep(thread: Thread, clock: int, flags: int, request: int, left: int) -> int:
    """Sleep by a clock, for a time or until one."""
    absolute = flags & _TIMER_ABSTIME
    until = thread.pointer(request) if absolute else thread.timeout(request)
    return thread.call("clock_nanosleep", clock, flags, until, thread.pointer(left))


@TIME.handled("timer_create", "clock:enum.clock sevp:struct_in.sigevent timerid:struct_out.int")
def timer_create(thread: Thread, clock: int, event: int, timer: int) -> int:
    """Make a timer, which does not outlive the program."""
    result = thread.call("timer_create", clock, thread.pointer(event), thread.pointer(timer))
    if result == 0:
        thread.process.timers.add(thread.space.read_int(timer, 4))
    return result
