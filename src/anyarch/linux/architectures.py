"""The architectures that programs may be built for, by the number in their ELF header."""

from __future__ import annotations

from typing import Final

from anyarch.linux.aarch64 import AARCH64
from anyarch.linux.abi import LinuxAbi
from anyarch.linux.riscv64 import RISCV64

ABIS: Final[dict[int, LinuxAbi]] = {abi.elf_machine: abi for abi in (RISCV64, AARCH64)}
