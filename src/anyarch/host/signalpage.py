"""Layout of what the native signal handlers find without a context: the signal page.

One per process. The action that is installed for a signal is a closure which hands the page to
the handler. Alternate stacks are laid out here too: their aligned base leads to the context.
"""

from __future__ import annotations

from typing import Final

SIGNALS: Final = 64

# The page: how each signal is handled, and what to chain to.
MODES: Final = 64  # one byte per signal number: MODE_...
CHAINING: Final = 136  # one byte per signal number: its previous action is being run
ACTIONS: Final = 256  # one struct kernel_sigaction of 32 bytes per signal number; 0 is SIG_DFL
SLOTS_USED: Final = 16  # how many slots, from the first, were ever in use
STOP_INFO: Final = 2560  # the siginfo that asks a thread to stop; its value is the page itself
SLOTS: Final = 4096  # threads: {context, thread id} of 16 bytes each
SLOT_COUNT: Final = 8192
PAGE_NBYTES: Final = SLOTS + 16 * SLOT_COUNT

MODE_CHAIN: Final = 0  # not ours: run the previous action
MODE_GUEST: Final = 1  # noted in the context's `pending`, with its siginfo
MODE_INTERRUPT: Final = 2  # stops every thread, then runs the previous action (Ctrl-C)

STOP_SIGNAL: Final = 33  # carries stop requests beside its other meaning; unused by Python

# An alternate stack: {context pointer, magic, REPEATED}, the slot, a guard page, the stack proper.
STACK_NBYTES: Final = 65536  # and alignment
STACK_START: Final = 12288
STACK_MAGIC: Final = 0x6B63617473_616161  # "aaastack"
REPEATED: Final = 16  # of the instruction in the slot: its pc, a register of the frame, its value
SLOT: Final = 4096  # where an instruction is repeated, see the machine's untagging
SLOT_NBYTES: Final = 4096
