"""Bounds on values: what a node can be, from its structure alone."""

from __future__ import annotations

from anyarch.ir.graph import Node


def unsigned_maximum(node: Node) -> int:
    """An upper bound of the unsigned value."""
    full = (1 << node.size) - 1
    match node.op:
        case "const":
            return node.value
        case "zext":
            return unsigned_maximum(node.args[0])
        case "and":
            return min(unsigned_maximum(arg) for arg in node.args)
        case "or" | "xor":
            bits = max(unsigned_maximum(arg).bit_length() for arg in node.args)
            return (1 << bits) - 1
        case "select":
            return max(unsigned_maximum(arg) for arg in node.args[1:])
        case "add":
            return min(full, sum(unsigned_maximum(arg) for arg in node.args))
        case "shl" if node.args[1].op == "const" and node.args[1].value < node.size:
            return min(full, unsigned_maximum(node.args[0]) << node.args[1].value)
        case "shr" if node.args[1].op == "const":
            return unsigned_maximum(node.args[0]) >> node.args[1].value
        case "concat":
            return unsigned_maximum(node.args[0]) << node.args[1].size | (
                (1 << node.args[1].size) - 1
            )
        case "clz" | "ctz" | "popcount":
            return min(full, node.size)
    return full


def signed_range(node: Node) -> tuple[int, int]:
    """Bounds (both included) of the signed value."""
    half = 1 << (node.size - 1)
    if (top := unsigned_maximum(node)) < half:
        return 0, top
    match node.op:
        case "const":
            return node.value - 2 * half, node.value - 2 * half
        case "sext":
            return signed_range(node.args[0])
        case "select":
            ranges = [signed_range(arg) for arg in node.args[1:]]
            return min(r[0] for r in ranges), max(r[1] for r in ranges)
        case "shl" if node.args[1].op == "const":
            low, high = signed_range(node.args[0])
            low, high = low << node.args[1].value, high << node.args[1].value
            if -half <= low and high < half:
                return low, high
    return -half, half - 1
