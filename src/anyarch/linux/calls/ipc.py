"""System V shared memory, semaphores and queues, and POSIX message queues.

Numbers and most structures are the same on every 64-bit architecture; x86's ``semid64_ds`` is not.
Source: the kernel's exported headers, ``asm-generic/{ipcbuf,sembuf,shmbuf,msgbuf}.h``.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

IPC: Final = Family()
_PAGE: Final = 4096
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4

for _name, _signature in {
    "semop": "semid:int sops:pointer nsops:size",
    "msgsnd": "msqid:int msgp:pointer msgsz:size msgflg:hex",
    "msgrcv": "msqid:int msgp:pointer msgsz:size msgtyp:long msgflg:hex",
}.items():
    IPC.passed(_name, _signature, native=True)  # never repeated after a signal: semop(2), msgrcv(2)

for _name, _signature in {
    "semget": "key:hex nsems:int semflg:hex",
    "shmget": "key:hex size:size shmflg:hex",
    "shmctl": "shmid:int cmd:enum.ipc buf:pointer",
    "msgget": "key:hex msgflg:hex",
    "msgctl": "msqid:int cmd:enum.ipc buf:pointer",
    "mq_open": "name:string oflag:flags.open mode:mode attr:pointer",
    "mq_unlink": "name:string",
    "mq_getsetattr": "mqdes:fd new:pointer old:pointer",
}.items():
    IPC.passed(_name, _signature, native=True)

for _name, _signature in {
    "mq_timedsend": ("mqdes:fd msg:bytes_in.len len:size prio:uint timeout:struct_in.timespec"),
    "mq_timedreceive": (
        "mqdes:fd msg:bytes_out.len len:size prio:pointer timeout:struct_in.timespec"
    ),
}.items():
    IPC.passed(_name, _signature, native=True, restart=True)

_SIGEVENT: Final = struct.Struct("<Qii48x")
_SIGEV_THREAD: Final = 2


@IPC.handled("mq_notify", "mqdes:fd sevp:struct_in.sigevent")
def mq_notify(thread: Thread, queue: int, event: int) -> int:
    """Be told of a message; for a C library's thread the value points to what it is told."""
    pointer = thread.pointer(event)
    if event:
        value, signum, how = _SIGEVENT.unpack(thread.space.read(event, _SIGEVENT.size))
        if how == _SIGEV_THREAD:
            pointer = thread.scratch_bytes(_SIGEVENT.pack(thread.pointer(value), signum, how))
    return thread.call("mq_notify", queue, pointer)


@IPC.handled(
    "semtimedop",
    "semid:int sops:pointer nsops:size timeout:struct_in.timespec",
    native=True,
    timeout="timeout",
)
def semtimedop(thread: Thread, identifier: int, operations: int, count: int, timeout: int) -> int:
    """Operations on semaphores, for so long at most."""
    pointer = thread.pointer(operations)
    return thread.call("semtimedop", identifier, pointer, count, thread.timeout(timeout))


_IPC_RMID, _IPC_SET, _IPC_STAT, _IPC_64 = 0, 1, 2, 0x100
_SEM_STAT, _SEM_STAT_ANY, _SETVAL = 18, 20, 16
_PERM_NBYTES: Final = 48
_HOST_SEMID: Final = struct.Struct("<48sq8xq8xQ16x")
_GUEST_SEMID: Final = struct.Struct("<48sqqQ16x")


@IPC.handled("semctl", "semid:int semnum:int cmd:enum.ipc arg:hex")
def semctl(thread: Thread, identifier: int, number: int, command: int, argument: int) -> int:
    """Control semaphores; the fourth argument is a number or a pointer, as the command says."""
    command &= ~_IPC_64 & 0xFFFFFFFF
    if command == _SETVAL:
        return thread.call("semctl", identifier, number, command, argument)
    if command not in (_IPC_SET, _IPC_STAT, _SEM_STAT, _SEM_STAT_ANY):
        return thread.call("semctl", identifier, number, command, thread.pointer(argument))
    pointer = thread.scratch_room(_HOST_SEMID.size)
    if command == _IPC_SET:
        thread.scratch_write(pointer, thread.space.read(argument, _PERM_NBYTES))
    result = thread.call("semctl", identifier, number, command, pointer)
    if result >= 0 and command != _IPC_SET:
        fields = _HOST_SEMID.unpack(thread.scratch_read(pointer, _HOST_SEMID.size))
        thread.space.write(argument, _GUEST_SEMID.pack(*fields))
    return result


_SHM_RDONLY, _SHM_RND, _SHM_REMAP, _SHM_EXEC = 0x1000, 0x2000, 0x4000, 0x8000
_SHMID_NBYTES: Final = 112
_SEGMENT: Final = "/SYSV"  # regions are named so, and by the segment's identifier


def _segment_nbytes(thread: Thread, identifier: int) -> int:
    """The size of a segment in whole pages, or -errno."""
    pointer = thread.scratch_room(_SHMID_NBYTES)
    result = thread.call("shmctl", identifier, _IPC_STAT, pointer)
    if result < 0:
        return result
    nbytes: int
    (nbytes,) = struct.unpack_from("<Q", thread.scratch_read(pointer, _SHMID_NBYTES), _PERM_NBYTES)
    return -(-nbytes // _PAGE) * _PAGE


@IPC.handled("shmat", "shmid:int shmaddr:address shmflg:hex", result="address")
def shmat(thread: Thread, identifier: int, address: int, flags: int) -> int:
    """Map a shared segment; the host attaches it in place of memory that is mapped for it."""
    nbytes = _segment_nbytes(thread, identifier)
    if nbytes < 0:
        return nbytes
    if address % _PAGE:
        if not flags & _SHM_RND:
            return -errno.EINVAL
        address -= address % _PAGE
    if flags & _SHM_REMAP and not address:
        return -errno.EINVAL
    prot = _PROT_READ | (0 if flags & _SHM_RDONLY else _PROT_WRITE)
    prot |= _PROT_EXEC if flags & _SHM_EXEC else 0
    name = f"{_SEGMENT}{identifier & 0xFFFFFFFF:08x}"
    try:
        mapped = thread.space.map(
            address,
            nbytes,
            prot,
            fixed=bool(address),
            noreplace=bool(address) and not flags & _SHM_REMAP,
            shared=True,
            name=name,
        )
    except FileExistsError:
        return -errno.EINVAL
    host_flags = flags & _SHM_RDONLY | _SHM_REMAP
    result = thread.call("shmat", identifier, thread.space.base + mapped, host_flags)
    if -4096 < result < 0:
        thread.space.unmap(mapped, nbytes)
        return result
    return mapped


@IPC.handled("shmdt", "shmaddr:address")
def shmdt(thread: Thread, address: int) -> int:
    """Unmap a segment; the host detaches it when its pages are gone."""
    regions = thread.space.regions()
    for region in regions:
        if region.start <= address < region.end and region.name.startswith(_SEGMENT):
            nbytes = _segment_nbytes(thread, int(region.name.removeprefix(_SEGMENT), 16))
            if address % _PAGE or nbytes < 0:
                break
            for part in regions:  # other protections may have divided it
                start, end = max(part.start, address), min(part.end, address + nbytes)
                if part.name == region.name and start < end:
                    thread.space.unmap(start, end - start)
            return 0
    return -errno.EINVAL
