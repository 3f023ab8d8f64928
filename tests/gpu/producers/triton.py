"""Kernels in Triton's language, compiled for the matrix units of sm_80 and for sm_90."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # it would name files of this machine

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def softmax(out, x, n, stride, block: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, block)
    value = tl.load(x + row * stride + column, mask=column < n, other=-float("inf"))
    power = tl.exp(value - tl.max(value, 0))
    tl.store(out + row * stride + column, power / tl.sum(power, 0), mask=column < n)


@triton.jit
def product(a, b, c, m, n, k, bm: tl.constexpr, bn: tl.constexpr, bk: tl.constexpr):
    rows = tl.program_id(0) * bm + tl.arange(0, bm)
    columns = tl.program_id(1) * bn + tl.arange(0, bn)
    inner = tl.arange(0, bk)
    total = tl.zeros((bm, bn), dtype=tl.float32)
    for start in range(0, k, bk):
        x = tl.load(a + rows[:, None] * k + (start + inner)[None, :])
        y = tl.load(b + (start + inner)[:, None] * n + columns[None, :])
        total = tl.dot(x, y, total)
    tl.store(c + rows[:, None] * n + columns[None, :], total)


@triton.jit
def ordered(x, out, block: tl.constexpr):
    place = tl.arange(0, block)
    tl.store(out + place, tl.sort(tl.load(x + place)))


@triton.jit
def counts(x, out, n, block: tl.constexpr):
    place = tl.program_id(0) * block + tl.arange(0, block)
    value = tl.load(x + place, mask=place < n, other=0)
    tl.atomic_add(out + value, 1, mask=place < n)


def write() -> None:
    """Compile all."""
    sizes = {"bm": 32, "bn": 32, "bk": 32}
    numbers = dict.fromkeys("mnk", "i32") | dict.fromkeys(sizes, "constexpr")
    block = {"block": "constexpr"}
    wide = {"x": "*i32", "out": "*i32"}
    chosen = {
        "softmax": (softmax, {"out": "*fp32", "x": "*fp32", "n": "i32", "stride": "i32"}, 90),
        "ordered": (ordered, wide, 90),
        "counts": (counts, {**wide, "n": "i32"}, 90),
        "product_f16": (product, {"a": "*fp16", "b": "*fp16", "c": "*fp32"}, 80),
        "product_wgmma": (product, {"a": "*fp16", "b": "*fp16", "c": "*fp32"}, 90),
        "product_bf16": (product, {"a": "*bf16", "b": "*bf16", "c": "*fp32"}, 80),
    }
    for name, (function, signature, target) in chosen.items():
        matrix = name.startswith("product")
        sizes |= {"bm": 64 if target == 90 else 32}  # what a group of warps multiplies
        source = ASTSource(
            fn=function,
            signature={**signature, **(numbers if matrix else block)},
            constexprs=sizes if matrix else {"block": 256 if name == "ordered" else 512},
        )
        done = triton.compile(source, target=GPUTarget("cuda", target, 32))
        assert done.metadata.num_warps == 4
        head = f"// dynamic shared memory: {done.metadata.shared}\n"
        path = Path(__file__).with_name(f"triton_{name}.ptx")
        path.write_text(head + done.asm["ptx"].split("\t.section")[0].rstrip() + "\n")


if __name__ == "__main__":
    write()
