"""Mounts, by the old calls and the new ones; quotas, swap, accounting: the host's to allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

MOUNTS: Final = Family()

for _name, _signature in {
    "mount": "source:string target:path type:string flags:hex data:pointer",
    "umount2": "target:path flags:hex",
    "open_tree": "dirfd:dirfd path:path flags:hex",
    "move_mount": "from_fd:dirfd from:path to_fd:dirfd to:path flags:hex",
    "fsopen": "type:string flags:hex",
    "fsconfig": "fd:fd command:uint key:string value:pointer aux:int",
    "fsmount": "fd:fd flags:hex attributes:hex",
    "fspick": "dirfd:dirfd path:path flags:hex",
    "mount_setattr": "dirfd:dirfd path:path flags:hex attr:pointer size:size",
    "statmount": "request:pointer buf:pointer size:size flags:hex",
    "listmount": "request:pointer ids:pointer count:size flags:hex",
    "quotactl": "command:hex special:path id:int addr:pointer",
    "quotactl_fd": "fd:fd command:hex id:int addr:pointer",
    "swapon": "path:path flags:hex",
    "swapoff": "path:path",
    "acct": "path:path",
}.items():
    MOUNTS.passed(_name, _signature)


@MOUNTS.handled("pivot_root", "new:path old:path")
def pivot_root(thread: Thread, new: int, old: int) -> int:
    """Make a mount the root of all names, the interpreter's too."""
    paths = [thread.find(thread.read_path(address)) + b"\0" for address in (new, old)]
    thread.process.confine(thread)
    result = thread.call("pivot_root", *map(thread.scratch_bytes, paths))
    if result == 0:
        thread.process.paths.confined()
    return result
