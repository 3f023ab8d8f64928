"""Memory that kernels, the scheduler and Python share: a launch, and a worker thread.

Offsets in bytes. A launch is read by all workers; only `next` and `output_next` change. A worker
belongs to one thread, which runs one block at a time.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BARRIERS", "FIBRE_NBYTES", "LAUNCH", "LAUNCH_NBYTES", "WORKER", "WORKER_NBYTES"]

LAUNCH: Final = {
    "next": 0,  # i64, the next block to run
    "blocks": 8,  # i64
    "grid": 16,  # 3 × i32
    "block": 28,  # 3 × i32
    "warps": 40,  # i32, flows of control in a block: warps, or threads where a warp is one lane
    "threads": 44,  # i32
    "parameters": 48,  # ptr
    "memory": 56,  # i64, address of the module's variables
    "number": 64,  # i64, %gridid
    "dynamic": 72,  # i32, bytes of dynamic shared memory
    "shared": 76,  # i32, of all shared memory
    "kernel": 80,  # ptr, native function (worker, launch, base, warp), or first and count of blocks
    "output": 88,  # ptr, records of printf
    "output_next": 96,  # i64, number of records written
    "output_size": 104,  # i64, records that fit
    "local_nbytes": 112,  # i64, local memory of a flow of control
    "width": 120,  # i32, lanes of a flow of control
    "mode": 124,  # i32, how blocks run: see MODE_BLOCKS and the rest
    "heap": 128,  # ptr: {next i64, end i64} of the module's heap
    "resident": 136,  # i64, blocks that a worker runs at once
    "workspace": 144,  # i64, address of words that grid barriers count in
    "chunk": 152,  # i64, blocks that a worker takes at once
    "ranges": 160,  # ptr, memory that a checked kernel may use, see checker.py
    "range_count": 168,  # i64
    "barrier_words": 192,  # the workspace
    "values": 256,  # the parameters
}
# The kernel runs blocks by itself; its warps are fibres; they are called one after another.
MODE_BLOCKS, MODE_FIBRES, MODE_WARPS = range(3)
LAUNCH_NBYTES: Final = 256 + 32768

WORKER: Final = {
    "context": 0,  # ptr, see anyarch.host.context
    "shared": 8,  # i64, address of the shared window
    "ctaid": 16,  # 3 × i32
    "warp": 28,  # i32, the one that runs, where none waits
    "local": 32,  # i64, its local memory
    "leave": 40,  # ptr, (context, exit code), does not return
    "barrier": 48,  # ptr, (worker, number, count, arrive) waits
    "pause": 56,  # ptr, (worker) lets others run
    "stop": 64,  # ptr to i32
    "local_start": 72,  # i64, local memory of the first
    "fibres": 80,  # ptr, records of FIBRE_NBYTES
    "main": 88,  # stack pointer of the scheduler while a fibre runs
    "live": 96,  # i32, threads of the block that have not ended
    "current": 104,  # ptr, the fibre that runs
    "stacks": 112,  # i64, top of the first fibre's stack
    "stack_nbytes": 120,  # i64, from one to the next
    "exchange": 128,  # ptr, (worker, members, value) -> slot: threads of a warp meet
    "launch": 136,  # ptr
    "base": 144,  # ptr, always null, which the compiler must not know
    "slots": 152,  # ptr, where they meet
    "ended": 160,  # ptr, 32 × i32: the threads of each warp that have ended
    "root": 168,  # ptr, the first of the workers that run at once
    "sync": 176,  # ptr, (worker): barrier 0 with all threads
    "used": 184,  # i32, which barriers but the usual one were used in this block
    "line": 192,  # 2 × i32, line and column of the PTX instruction that left
    "check": 200,  # ptr, what a checked kernel keeps of a block
    "running": 208,  # ptr, in the first: the worker whose fibre runs
    "barriers": 256,  # 16 × {arrived i32, phase i32, expected i32, value i32, result i32}
}
BARRIERS: Final = 16
WORKER_NBYTES: Final = 4096

# A fibre: stack pointer, next, previous, worker, warp, local memory.
FIBRE_NBYTES: Final = 64
FIBRE_WARP, FIBRE_LOCAL = 32, 40

# Exit codes of a launch beyond those of anyarch.host.context.
TRAP: Final = 32
ASSERTION: Final = 33

OUTPUT_RECORD: Final = 512  # kind i64, format i64, block 3 × i32, warp i32, lane i32, arguments
OUTPUT_ARGUMENTS: Final = 64
