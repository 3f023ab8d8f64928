"""PTX: text to a tree, and the signatures of its kernels."""

from __future__ import annotations

from anyarch.gpu.ptx.linker import link
from anyarch.gpu.ptx.parser import parse
from anyarch.gpu.ptx.tree import Function
from anyarch.gpu.signature import Signature, lay_out

__all__ = ["link", "parse", "parse_signatures", "signature_of"]


def parse_signatures(text: str) -> dict[str, Signature]:
    """The signature of every kernel with a body, by name."""
    return {name: signature_of(kernel) for name, kernel in parse(text).kernels.items()}


def signature_of(function: Function) -> Signature:
    """How a function's parameters lie in memory."""
    return lay_out([(p.name, p.type, p.count, p.align) for p in function.parameters])
