"""``anyarch doctor``: what this machine offers, what is missing, how to get it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from typing import Literal

from anyarch._version import __version__
from anyarch.cli.register import is_mounted, registered
from anyarch.engine.cache import CodeCache
from anyarch.gpu.device import find_backend
from anyarch.host.cpu import PAGE, features

Status = Literal["ok", "missing", "optional"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``missing`` is needed to run programs, ``optional`` is not."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """All findings."""
    return [
        Check("anyarch", "ok", __version__),
        _python(),
        _system(),
        _processor(),
        _page_size(),
        _llvm(),
        _cache(),
        _registration(),
        _kvm(),
        _gpu(),
        _program("qemu-riscv64", "compares results with another emulator", "qemu-user"),
        _ziglang(),
    ]


def _python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    good = platform.python_implementation() == "CPython"
    return Check("Python", "ok" if good else "missing", found, "" if good else "use CPython")


def _system() -> Check:
    found = f"{platform.system()} {platform.release()}"
    with contextlib.suppress(OSError, KeyError):  # a system without os-release is as good
        found += f", {platform.freedesktop_os_release()['PRETTY_NAME']}"
    if sys.platform == "linux":
        return Check("system", "ok", found)
    return Check("system", "missing", found, "programs run on Linux only; use a virtual machine")


def _processor() -> Check:
    machine = platform.machine()
    wanted = ("sse4_1", "popcnt", "avx2", "bmi2", "fma", "pclmulqdq", "avx512f")
    found = f"{machine}, {os.cpu_count()} cores: " + " ".join(w for w in wanted if w in features())
    if machine == "x86_64":
        return Check("processor", "ok", found)
    remedy = "native code is generated for x86-64; --engine reference works, slowly"
    return Check("processor", "missing", found, remedy)


def _page_size() -> Check:
    if PAGE == 4096:
        return Check("page size", "ok", "4096 bytes")
    return Check("page size", "missing", f"{PAGE} bytes", "boot a kernel with pages of 4096 bytes")


def _llvm() -> Check:
    if importlib.util.find_spec("llvmlite") is None:
        remedy = f"{sys.executable} -m pip install 'llvmlite>=0.50,<0.51'"
        return Check("llvmlite", "missing", "not installed", remedy)
    import llvmlite
    import llvmlite.binding

    llvm = ".".join(map(str, llvmlite.binding.llvm_version_info))
    found = f"{llvmlite.__version__} with LLVM {llvm}"
    if llvmlite.__version__.startswith("0.50."):
        return Check("llvmlite", "ok", found)
    remedy = f"{sys.executable} -m pip install 'llvmlite>=0.50,<0.51'"
    return Check("llvmlite", "missing", found, remedy)


def _cache() -> Check:
    cache = CodeCache()
    entries = list(cache.entries())
    nbytes = sum(entry.nbytes for entry in entries)
    found = f"{cache.path}: {len(entries)} entries, {nbytes:,} bytes"
    place = cache.path
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if os.access(place, os.W_OK | os.X_OK):
        return Check("code cache", "ok", found)
    remedy = "set ANYARCH_CACHE to a directory of yours, else every run compiles anew"
    return Check("code cache", "optional", f"{found}; {place} is not writable", remedy)


def _registration() -> Check:
    names = registered()
    if names:
        return Check("binfmt_misc", "ok", f"the kernel starts {', '.join(names)} programs")
    found = "no entry of ours" if is_mounted() else "not mounted"
    remedy = "`anyarch register --apply` lets the kernel start programs of other processors"
    return Check("binfmt_misc", "optional", found, remedy)


def _kvm() -> Check:
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Check("KVM", "ok", "/dev/kvm")
    if os.path.exists("/dev/kvm"):
        return Check("KVM", "optional", "no permission for /dev/kvm", "join the group kvm")
    return Check("KVM", "optional", "no /dev/kvm", "not used yet; enable virtualisation for it")


def _gpu() -> Check:
    from anyarch import gpu

    try:
        count = find_backend("cuda").count()
    except gpu.NoDriverError as error:
        return Check("GPU", "optional", str(error), "kernels run on the cpu")
    except gpu.NoDeviceError as error:
        return Check("GPU", "optional", "a driver that cannot be used", str(error))
    names = ", ".join(gpu.Device(f"cuda:{ordinal}").name for ordinal in range(count))
    return Check("GPU", "ok", names)


def _program(name: str, purpose: str, package: str) -> Check:
    path = shutil.which(name)
    if path is not None:
        return Check(name, "ok", path)
    return Check(name, "optional", "not installed", f"{purpose}: install {package}")


def _ziglang() -> Check:
    if importlib.util.find_spec("ziglang") is not None:
        return Check("ziglang", "ok", "installed")
    remedy = f"compiles examples and test programs: {sys.executable} -m pip install ziglang"
    return Check("ziglang", "optional", "not installed", remedy)
