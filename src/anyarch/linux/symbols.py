"""Names of the numbers in system calls, as strace prints them. Loaded only for a trace.

Source: the kernel's exported headers, asm-generic and x86 where both agree.
"""

from __future__ import annotations

from typing import Final


def _bits(text: str) -> dict[int, str]:
    pairs = (part.split("=") for part in text.split())
    return {int(value, 0): name for name, value in pairs}


def _counted(text: str, first: int = 0) -> dict[int, str]:
    return dict(enumerate(text.split(), first))


SIGNALS: Final = _counted(
    "SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 "
    "SIGPIPE SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG "
    "SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS",
    1,
)


def signal_name(number: int) -> str:
    """The name of a signal."""
    return SIGNALS.get(number) or (f"SIGRT_{number - 32}" if 32 <= number <= 64 else str(number))


FLAGS: Final[dict[str, dict[int, str]]] = {
    "open": _bits(
        "O_WRONLY=1 O_RDWR=2 O_CREAT=0o100 O_EXCL=0o200 O_NOCTTY=0o400 O_TRUNC=0o1000 "
        "O_APPEND=0o2000 O_NONBLOCK=0o4000 O_SYNC=0o4010000 O_DSYNC=0o10000 FASYNC=0o20000 "
        "O_DIRECT=0o40000 O_LARGEFILE=0o100000 O_TMPFILE=0o20200000 O_DIRECTORY=0o200000 "
        "O_NOFOLLOW=0o400000 O_NOATIME=0o1000000 O_CLOEXEC=0o2000000 O_PATH=0o10000000"
    ),
    "at": _bits(
        "AT_SYMLINK_NOFOLLOW=0x100 AT_EACCESS=0x200 AT_SYMLINK_FOLLOW=0x400 "
        "AT_NO_AUTOMOUNT=0x800 AT_EMPTY_PATH=0x1000 AT_STATX_FORCE_SYNC=0x2000 "
        "AT_STATX_DONT_SYNC=0x4000"
    ),
    "at_remove": _bits("AT_REMOVEDIR=0x200"),
    "access": _bits("R_OK=4 W_OK=2 X_OK=1"),
    "rename": _bits("RENAME_NOREPLACE=1 RENAME_EXCHANGE=2 RENAME_WHITEOUT=4"),
    "statx": _bits(
        "STATX_ALL=0xfff STATX_BASIC_STATS=0x7ff STATX_TYPE=1 STATX_MODE=2 STATX_NLINK=4 "
        "STATX_UID=8 STATX_GID=0x10 STATX_ATIME=0x20 STATX_MTIME=0x40 STATX_CTIME=0x80 "
        "STATX_INO=0x100 STATX_SIZE=0x200 STATX_BLOCKS=0x400 STATX_BTIME=0x800 "
        "STATX_MNT_ID=0x1000"
    ),
    "splice": _bits("SPLICE_F_MOVE=1 SPLICE_F_NONBLOCK=2 SPLICE_F_MORE=4 SPLICE_F_GIFT=8"),
    "flock": _bits("LOCK_SH=1 LOCK_EX=2 LOCK_NB=4 LOCK_UN=8"),
    "fallocate": _bits(
        "FALLOC_FL_KEEP_SIZE=1 FALLOC_FL_PUNCH_HOLE=2 FALLOC_FL_COLLAPSE_RANGE=8 "
        "FALLOC_FL_ZERO_RANGE=0x10"
    ),
    "prot": _bits("PROT_READ=1 PROT_WRITE=2 PROT_EXEC=4"),
    "map": _bits(
        "MAP_SHARED_VALIDATE=3 MAP_SHARED=1 MAP_PRIVATE=2 MAP_FIXED=0x10 MAP_ANONYMOUS=0x20 "
        "MAP_GROWSDOWN=0x100 MAP_DENYWRITE=0x800 MAP_LOCKED=0x2000 MAP_NORESERVE=0x4000 "
        "MAP_POPULATE=0x8000 MAP_NONBLOCK=0x10000 MAP_STACK=0x20000 MAP_HUGETLB=0x40000 "
        "MAP_FIXED_NOREPLACE=0x100000"
    ),
    "mremap": _bits("MREMAP_MAYMOVE=1 MREMAP_FIXED=2 MREMAP_DONTUNMAP=4"),
    "msync": _bits("MS_ASYNC=1 MS_INVALIDATE=2 MS_SYNC=4"),
    "timer": _bits("TIMER_ABSTIME=1"),
    "wait": _bits(
        "WNOHANG=1 WSTOPPED=2 WEXITED=4 WCONTINUED=8 WNOWAIT=0x1000000 __WALL=0x40000000"
    ),
    "random": _bits("GRND_NONBLOCK=1 GRND_RANDOM=2 GRND_INSECURE=4"),
    "message": _bits(
        "MSG_OOB=1 MSG_PEEK=2 MSG_DONTROUTE=4 MSG_TRUNC=0x20 MSG_DONTWAIT=0x40 MSG_WAITALL=0x100 "
        "MSG_NOSIGNAL=0x4000 MSG_MORE=0x8000 MSG_WAITFORONE=0x10000 MSG_CMSG_CLOEXEC=0x40000000"
    ),
    "sigaction": _bits(
        "SA_NOCLDSTOP=1 SA_NOCLDWAIT=2 SA_SIGINFO=4 SA_RESTORER=0x04000000 SA_ONSTACK=0x08000000 "
        "SA_RESTART=0x10000000 SA_NODEFER=0x40000000 SA_RESETHAND=0x80000000"
    ),
    "clone": _bits(
        "CLONE_VM=0x100 CLONE_FS=0x200 CLONE_FILES=0x400 CLONE_SIGHAND=0x800 CLONE_PIDFD=0x1000 "
        "CLONE_PTRACE=0x2000 CLONE_VFORK=0x4000 CLONE_PARENT=0x8000 CLONE_THREAD=0x10000 "
        "CLONE_NEWNS=0x20000 CLONE_SYSVSEM=0x40000 CLONE_SETTLS=0x80000 "
        "CLONE_PARENT_SETTID=0x100000 CLONE_CHILD_CLEARTID=0x200000 CLONE_DETACHED=0x400000 "
        "CLONE_CHILD_SETTID=0x1000000 CLONE_NEWUSER=0x10000000 CLONE_NEWPID=0x20000000 "
        "CLONE_NEWNET=0x40000000"
    ),
    "poll": _bits(
        "POLLIN=1 POLLPRI=2 POLLOUT=4 POLLERR=8 POLLHUP=0x10 POLLNVAL=0x20 POLLRDNORM=0x40 "
        "POLLRDBAND=0x80 POLLWRNORM=0x100 POLLWRBAND=0x200 POLLMSG=0x400 POLLRDHUP=0x2000"
    ),
}

ENUMS: Final[dict[str, dict[int, str]]] = {
    "whence": _counted("SEEK_SET SEEK_CUR SEEK_END SEEK_DATA SEEK_HOLE"),
    "fadvise": _counted(
        "POSIX_FADV_NORMAL POSIX_FADV_RANDOM POSIX_FADV_SEQUENTIAL POSIX_FADV_WILLNEED "
        "POSIX_FADV_DONTNEED POSIX_FADV_NOREUSE"
    ),
    "fcntl": _counted(
        "F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_SETOWN F_GETOWN"
    )
    | _bits(
        "F_OFD_GETLK=36 F_OFD_SETLK=37 F_OFD_SETLKW=38 F_SETLEASE=1024 F_GETLEASE=1025 "
        "F_DUPFD_CLOEXEC=1030 F_SETPIPE_SZ=1031 F_GETPIPE_SZ=1032 F_ADD_SEALS=1033 F_GET_SEALS=1034"
    ),
    "ioctl": _bits(
        "TCGETS=0x5401 TCSETS=0x5402 TCSETSW=0x5403 TCSETSF=0x5404 TCSBRK=0x5409 TCXONC=0x540a "
        "TCFLSH=0x540b TIOCSCTTY=0x540e TIOCGPGRP=0x540f TIOCSPGRP=0x5410 TIOCOUTQ=0x5411 "
        "TIOCGWINSZ=0x5413 TIOCSWINSZ=0x5414 FIONREAD=0x541b FIONBIO=0x5421 TIOCNOTTY=0x5422 "
        "TIOCGSID=0x5429 TIOCGPTN=0x80045430 TIOCSPTLCK=0x40045431 FIONCLEX=0x5450 FIOCLEX=0x5451 "
        "FIOASYNC=0x5452 SIOCGIFCONF=0x8912 SIOCGIFFLAGS=0x8913 SIOCGIFADDR=0x8915 "
        "FICLONE=0x40049409 BLKGETSIZE64=0x80081272 SIOCGIFNAME=0x8910 SIOCGIFMTU=0x8921 "
        "SIOCGIFHWADDR=0x8927 SIOCGIFINDEX=0x8933 SIOCGIFNETMASK=0x891b SIOCGIFBRDADDR=0x8919 "
        "TIOCEXCL=0x540c TIOCNXCL=0x540d TIOCSTI=0x5412 TCGETA=0x5405 TIOCGPTPEER=0x5441 "
        "TCGETS2=0x802c542a TCSETS2=0x402c542b"
    ),
    "madvise": _counted("MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED MADV_DONTNEED")
    | _counted(
        "MADV_FREE MADV_REMOVE MADV_DONTFORK MADV_DOFORK MADV_MERGEABLE MADV_UNMERGEABLE "
        "MADV_HUGEPAGE MADV_NOHUGEPAGE MADV_DONTDUMP MADV_DODUMP MADV_WIPEONFORK "
        "MADV_KEEPONFORK MADV_COLD MADV_PAGEOUT MADV_POPULATE_READ",
        8,
    ),
    "clock": _counted(
        "CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID "
        "CLOCK_MONOTONIC_RAW CLOCK_REALTIME_COARSE CLOCK_MONOTONIC_COARSE CLOCK_BOOTTIME "
        "CLOCK_REALTIME_ALARM CLOCK_BOOTTIME_ALARM"
    ),
    "itimer": _counted("ITIMER_REAL ITIMER_VIRTUAL ITIMER_PROF"),
    "waitid": _counted("P_ALL P_PID P_PGID P_PIDFD"),
    "sigmask": _counted("SIG_BLOCK SIG_UNBLOCK SIG_SETMASK"),
    "futex": _counted(
        "FUTEX_WAIT FUTEX_WAKE FUTEX_FD FUTEX_REQUEUE FUTEX_CMP_REQUEUE FUTEX_WAKE_OP "
        "FUTEX_LOCK_PI FUTEX_UNLOCK_PI FUTEX_TRYLOCK_PI FUTEX_WAIT_BITSET FUTEX_WAKE_BITSET"
    )
    | {
        128 + number: f"{name}_PRIVATE"
        for number, name in {
            0: "FUTEX_WAIT",
            1: "FUTEX_WAKE",
            9: "FUTEX_WAIT_BITSET",
            10: "FUTEX_WAKE_BITSET",
        }.items()
    },
    "prctl": _bits(
        "PR_SET_PDEATHSIG=1 PR_GET_PDEATHSIG=2 PR_GET_DUMPABLE=3 PR_SET_DUMPABLE=4 "
        "PR_SET_NAME=15 PR_GET_NAME=16 PR_SET_SECCOMP=22 PR_CAPBSET_READ=23 "
        "PR_SET_CHILD_SUBREAPER=36 PR_SET_NO_NEW_PRIVS=38 PR_CAP_AMBIENT=47 PR_SET_VMA=0x53564d41"
    ),
    "rlimit": _counted(
        "RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC "
        "RLIMIT_NOFILE RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE "
        "RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME"
    ),
    "epoll": _counted("EPOLL_CTL_ADD EPOLL_CTL_DEL EPOLL_CTL_MOD", 1),
    "domain": _bits("AF_UNSPEC=0 AF_UNIX=1 AF_INET=2 AF_INET6=10 AF_NETLINK=16 AF_PACKET=17"),
    "socket": {
        number | flags: name + suffix
        for number, name in _counted("SOCK_STREAM SOCK_DGRAM SOCK_RAW", 1).items()
        for flags, suffix in {
            0: "",
            0o4000: "|SOCK_NONBLOCK",
            0o2000000: "|SOCK_CLOEXEC",
            0o2004000: "|SOCK_CLOEXEC|SOCK_NONBLOCK",
        }.items()
    },
    "ipc": _counted("IPC_RMID IPC_SET IPC_STAT IPC_INFO")
    | _counted("GETPID GETVAL GETALL GETNCNT GETZCNT SETVAL SETALL SEM_STAT SEM_INFO", 11),
    "shutdown": _counted("SHUT_RD SHUT_WR SHUT_RDWR"),
}
_ZEROS: Final = {"access": "F_OK", "open": "O_RDONLY", "prot": "PROT_NONE"}


def format_flags(name: str, value: int) -> str:
    """A set of flags, by the longest names first; what has no name in hexadecimal."""
    value &= 0xFFFFFFFFFFFFFFFF if name == "clone" else 0xFFFFFFFF
    table = FLAGS[name]
    names = []
    if name == "open" and not value & 3 and value:
        names.append("O_RDONLY")
    rest = value
    for bits in sorted(table, key=lambda bits: (-bits.bit_count(), bits)):
        if rest & bits == bits:
            names.append(table[bits])
            rest &= ~bits
    if name == "clone" and rest & 0xFF:
        names.append(signal_name(rest & 0xFF))
        rest &= ~0xFF
    if rest:
        names.append(f"{rest:#x}")
    return "|".join(names) or _ZEROS.get(name, "0")


def format_enum(name: str, value: int) -> str:
    """One of a set of numbers."""
    value &= 0xFFFFFFFF
    return ENUMS[name].get(value) or f"{value:#x}"
