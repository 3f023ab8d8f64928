"""What loading PTX and launching its kernels needs to know of the text, kept in the code cache.

With it, and the code of the kernels, nothing is parsed when the same text is loaded again.
"""

from __future__ import annotations

import json
import struct
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final

from anyarch.emit.blob import Blob
from anyarch.gpu.signature import Parameter, Signature

if TYPE_CHECKING:
    from anyarch.gpu.cpu.layout import ModuleLayout
    from anyarch.gpu.ptx.tree import Module

__all__ = [
    "FACTS",
    "Facts",
    "KernelOutline",
    "Outline",
    "outline_of",
    "pack_facts",
    "pack_outline",
    "unpack_facts",
    "unpack_outline",
]

_LIMITS: Final = ("reqntid", "maxntid")
_IMAGE: Final = "image"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a launch needs to know of a compiled kernel; kept beside its code, as numbers."""

    shared: int  # bytes of static shared memory
    dynamic: int  # offset of dynamic shared memory
    local_nbytes: int  # of a flow of control
    local: int  # of a thread
    fibres: int  # whether flows of control of a block must be able to wait for each other
    width: int  # lanes of a flow of control


FACTS: Final = struct.Struct(f"<{len(Facts.__dataclass_fields__)}i")


@dataclass(frozen=True, slots=True)
class KernelOutline:
    """A kernel's parameters, and its directives that limit blocks."""

    signature: Signature
    limits: dict[str, tuple[int, ...]]

    @property
    def max_threads(self) -> int:
        """The largest block that the directives allow."""
        for name in _LIMITS:
            if numbers := self.limits.get(name):
                product = 1
                for n in numbers:
                    product *= n
                return product
        return 1024

    @property
    def required_block(self) -> tuple[int, int, int] | None:
        """The only size of block that the directives allow, None if they allow others."""
        numbers = self.limits.get("reqntid")
        if not numbers:
            return None
        x, y, z = (*numbers, 1, 1)[:3]
        return x, y, z


@dataclass(frozen=True, slots=True)
class Outline:
    """Of a module: `variables` are offset and size in memory that begins as `image`, with
    `addresses` put into it (`ModuleLayout`)."""

    version: tuple[int, int]
    kernels: dict[str, KernelOutline]
    variables: dict[str, tuple[int, int]]
    constant_nbytes: int
    image: bytes
    addresses: list[tuple[int, int]]
    allocates: bool  # whether device code may call malloc
    prints: bool  # or print, or assert


def outline_of(module: Module, layout: ModuleLayout) -> Outline:
    """The outline of a parsed module."""
    from anyarch.gpu.ptx import signature_of

    kernels = {}
    for name, function in module.kernels.items():
        limits = {k: tuple(v) for k in _LIMITS if (v := function.directives.get(k))}
        kernels[name] = KernelOutline(signature_of(function), limits)
    known = module.variables
    return Outline(
        module.version,
        kernels,
        {name: (at, known[name].nbytes) for name, at in layout.offsets.items()},
        sum(v.nbytes for v in known.values() if v.space == "const"),
        bytes(layout.image),
        layout.addresses,
        "malloc" in module.functions,
        bool({"vprintf", "__assertfail", "__assert_fail"} & module.functions.keys()),
    )


def pack_outline(outline: Outline) -> Blob:
    """As the code cache keeps it."""
    kernels = {
        name: [[astuple(p) for p in k.signature.parameters], k.signature.nbytes, k.limits]
        for name, k in outline.kernels.items()
    }
    text = json.dumps(
        [
            outline.version,
            kernels,
            outline.variables,
            outline.constant_nbytes,
            outline.addresses,
            outline.allocates,
            outline.prints,
        ]
    ).encode()
    return Blob(text + outline.image, {_IMAGE: len(text)})


def unpack_outline(blob: Blob) -> Outline:
    """From what the code cache has kept."""
    at = blob.symbols[_IMAGE]
    version, kernels, variables, constant, addresses, allocates, prints = json.loads(blob.code[:at])
    return Outline(
        tuple(version),
        {
            name: KernelOutline(
                Signature(tuple(Parameter(*p) for p in parameters), nbytes),
                {key: tuple(numbers) for key, numbers in limits.items()},
            )
            for name, (parameters, nbytes, limits) in kernels.items()
        },
        {name: (at, nbytes) for name, (at, nbytes) in variables.items()},
        constant,
        blob.code[at:],
        [(at, addend) for at, addend in addresses],
        allocates,
        prints,
    )


def pack_facts(facts: Facts) -> Blob:
    """The facts of a kernel that was looked at without compiling it."""
    return Blob(FACTS.pack(*astuple(facts)), {})


def unpack_facts(data: bytes) -> Facts:
    """From a blob, or from beside a kernel's code."""
    return Facts(*FACTS.unpack(data))
