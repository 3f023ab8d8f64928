"""Multiplications of matrices by a warp: forms of mma and wmma, inputs, and where elements lie.

``python -m tests.gpu.matrices [FILE]`` records on a GPU what each gives; test_ptx_matrices.py
compares the cpu with that, and with the products as NumPy makes them.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from anyarch import gpu

VECTORS: Final = Path(__file__).parent / "vectors" / "matrices.json"
SIZES: Final = {
    **dict.fromkeys(("f16", "bf16"), 16),
    **dict.fromkeys(("f32", "tf32", "s32"), 32),
    **dict.fromkeys(("s8", "u8", "e4m3", "e5m2"), 8),
    **dict.fromkeys(("s4", "u4"), 4),
    "f64": 64,
    "b1": 1,
}
HEAD: Final = ".version 8.5\n.target sm_90\n.address_size 64\n"


class Form(NamedTuple):
    """One multiplication; `text` is the instruction without operands."""

    kind: str  # mma | sparse | quads | wmma
    m: int
    n: int
    k: int
    d: str
    a: str
    b: str
    c: str
    extra: str = ""
    layouts: str = "row.col"
    selector: int = 0  # which lanes have the metadata of a sparse a

    @property
    def name(self) -> str:
        size = f"m{self.m}n{self.n}k{self.k}"
        types = f"{self.d}.{self.a}.{self.b}.{self.c}"
        selector = f".{self.selector}" if self.kind == "sparse" else ""
        return f"{self.kind}.{size}.{self.layouts}.{types}{self.extra}{selector}"


def forms() -> dict[str, Form]:
    """All of them by name."""
    found = []
    for k in (8, 16):
        for d, c in (("f32", "f32"), ("f16", "f16")):
            found.append(Form("mma", 16, 8, k, d, "f16", "f16", c))
        found.append(Form("mma", 16, 8, k, "f32", "bf16", "bf16", "f32"))
    for k in (4, 8):
        found.append(Form("mma", 16, 8, k, "f32", "tf32", "tf32", "f32"))
    found.append(Form("mma", 8, 8, 4, "f64", "f64", "f64", "f64"))
    for k in (4, 8, 16):
        found.append(Form("mma", 16, 8, k, "f64", "f64", "f64", "f64"))
    for a, b in (("s8", "s8"), ("u8", "s8"), ("s8", "u8"), ("u8", "u8")):
        for m, k in ((8, 16), (16, 16), (16, 32)):
            found.append(Form("mma", m, 8, k, "s32", a, b, "s32"))
            if a == b:
                found.append(Form("mma", m, 8, k, "s32", a, b, "s32", ".satfinite"))
    for a, b in (("s4", "s4"), ("u4", "s4"), ("u4", "u4")):
        for m, k in ((8, 32), (16, 32), (16, 64)):
            found.append(Form("mma", m, 8, k, "s32", a, b, "s32"))
    for operation in (".xor.popc", ".and.popc"):
        for m, k in ((8, 128), (16, 128), (16, 256)):
            found.append(Form("mma", m, 8, k, "s32", "b1", "b1", "s32", operation))
    for a, b in (("e4m3", "e4m3"), ("e5m2", "e4m3"), ("e5m2", "e5m2")):
        found.append(Form("mma", 16, 8, 32, "f32", a, b, "f32"))
    for layouts in ("row.col", "col.row", "row.row", "col.col"):
        for d, c in (("f32", "f32"), ("f32", "f16"), ("f16", "f16")):
            found.append(Form("quads", 8, 8, 4, d, "f16", "f16", c, "", layouts))
    for a, b, d, k, lanes in (
        *(("f16", "f16", "f32", 16 * n, 4 // n) for n in (1, 2)),
        *(("f16", "f16", "f16", 16 * n, 4 // n) for n in (1, 2)),
        *(("bf16", "bf16", "f32", 16 * n, 4 // n) for n in (1, 2)),
        *(("tf32", "tf32", "f32", 8 * n, 4 // n) for n in (1, 2)),
        *(("s8", "u8", "s32", 32 * n, 2 // n) for n in (1, 2)),
        *(("s4", "u4", "s32", 64 * n, 2 // n) for n in (1, 2)),
        ("e4m3", "e5m2", "f32", 64, 1),
    ):
        for selector in range(lanes):
            found.append(Form("sparse", 16, 8, k, d, a, b, d, selector=selector))
    found.append(Form("sparse", 16, 8, 64, "s32", "u8", "u8", "s32", ".satfinite"))
    shapes = ((16, 16, 16), (32, 8, 16), (8, 32, 16))
    for m, n, k in shapes:
        for layouts in ("row.col", "col.row", "row.row", "col.col"):
            found.append(Form("wmma", m, n, k, "f32", "f16", "f16", "f32", "", layouts))
        found.append(Form("wmma", m, n, k, "f16", "f16", "f16", "f16"))
        found.append(Form("wmma", m, n, k, "f16", "f16", "f16", "f32", "", "col.col"))
        found.append(Form("wmma", m, n, k, "f32", "bf16", "bf16", "f32"))
        found.append(Form("wmma", m, n, k, "s32", "s8", "s8", "s32"))
        found.append(Form("wmma", m, n, k, "s32", "u8", "u8", "s32", "", "col.row"))
    found.append(Form("wmma", 16, 16, 8, "f32", "tf32", "tf32", "f32", "", "col.row"))
    found.append(Form("wmma", 8, 8, 4, "f64", "f64", "f64", "f64", "", "row.row"))
    found.append(Form("wmma", 8, 8, 32, "s32", "s4", "s4", "s32"))
    found.append(Form("wmma", 8, 8, 128, "s32", "b1", "b1", "s32", ".xor.popc"))
    return {form.name: form for form in found}


# Elements. A matrix is an array of float64 or int64; `encode` gives its bits per element.


def random_matrix(chance: np.random.Generator, type_: str, shape: tuple[int, int]) -> Any:
    """The bits of elements, as unsigned integers, and their values."""
    if type_ in ("s32", "s8", "u8", "s4", "u4", "b1"):
        size = SIZES[type_]
        bits = chance.integers(0, 1 << min(size, 30), shape).astype("u8")
        values = bits.astype("i8")
        if type_[0] == "s" and size < 32:
            values = values - ((values >> size - 1) << size)
        return bits, values
    if type_ == "f64":
        values = chance.standard_normal(shape)
        return values.view("u8"), values
    if type_ in ("e4m3", "e5m2"):
        bits = chance.integers(0, 0x70, shape) | chance.integers(0, 2, shape) << 7
        return bits.astype("u8"), small_value(bits, 3 if type_ == "e4m3" else 2)
    values = chance.standard_normal(shape).astype("f4")
    if type_ == "f16":
        half = values.astype("f2")
        return half.view("u2").astype("u8"), half.astype("f8")
    bits = values.view("u4")
    if type_ == "bf16":
        bits = bits >> 16
        return bits.astype("u8"), (bits << 16).view("f4").astype("f8")
    if type_ == "tf32":
        bits = bits & 0xFFFFE000
    return bits.astype("u8"), bits.view("f4").astype("f8")


def small_value(bits: Any, mantissa: int) -> Any:
    """Floats of 8 bits without infinities and NaNs."""
    exponent = bits >> mantissa & (0x7F >> mantissa)
    fraction = (bits & (1 << mantissa) - 1) / (1 << mantissa)
    bias = (1 << 6 - mantissa) - 1
    value = np.where(exponent, 1 + fraction, fraction * 2) * 2.0 ** (exponent - bias)
    return np.where(exponent, value, fraction * 2.0 ** (1 - bias)) * (1 - 2 * (bits >> 7 & 1))


def inputs(form: Form) -> dict[str, tuple[Any, Any]]:
    """Bits and values of a, b and c."""
    chance = np.random.default_rng(zlib.crc32(form.name.encode()))
    m, k = form.m, form.k
    if form.kind == "quads":  # four products, one below the other
        m = 4 * m
    sizes = {"a": (m, k), "b": (k, form.n * m // form.m), "c": (m, form.n)}
    if form.kind == "sparse":
        sizes["a"] = m, k // 2
    types = {"a": form.a, "b": form.b, "c": form.c}
    found = {which: random_matrix(chance, types[which], sizes[which]) for which in "abc"}
    if "satfinite" in form.extra:
        limit = np.where(found["c"][0] & 1, 0x7FFFFF00, 0x80000100)
        found["c"] = limit.astype("u8"), limit.astype("u4").view("i4").astype("i8")
    return found


def nibbles(form: Form) -> Any:
    """Of each chunk of a row of a sparse a, which elements are there."""
    chance = np.random.default_rng(zlib.crc32(form.name.encode()) + 1)
    chunks = form.k // {32: 2, 16: 4, 8: 4, 4: 8}[SIZES[form.a]]
    known = [4, 14] if form.a == "tf32" else [4, 8, 12, 9, 13, 14]
    return chance.choice(known, (form.m, chunks))


def whole(form: Form, there: Any) -> Any:
    """A sparse a as the matrix that it stands for."""
    result = np.zeros((form.m, form.k), there.dtype)
    together, chosen = (2 if SIZES[form.a] == 4 else 1), nibbles(form)
    for (row, at), value in np.ndenumerate(there):
        if form.a == "tf32":
            result[row, 2 * at + (chosen[row, at] == 14)] = value
            continue
        chunk, number = divmod(at // together, 2)
        index = chosen[row, chunk] >> 2 * number & 3
        result[row, (4 * chunk + index) * together + at % together] = value
    return result


def metadata(form: Form) -> Any:
    """What the lanes bring of it: as an H200 takes it."""
    found = np.zeros(32, "u4")
    for (row, chunk), nibble in np.ndenumerate(nibbles(form)):
        chunks = form.k // {32: 2, 16: 4, 8: 4, 4: 8}[SIZES[form.a]]
        if SIZES[form.a] >= 16:
            lane, place = chunk // 4 + form.selector * chunks // 4, chunk % 4 + row // 8 * 4
        else:
            lane, place = chunk // 8 * 2 + row // 8 + 2 * form.selector, chunk % 8
        found[row % 8 * 4 + lane] |= int(nibble) << 4 * place
    return found


def product(form: Form, *, magnitudes: bool = False) -> Any:
    """a × b + c, or that of the elements' magnitudes."""
    a, b, c = (values for _, values in inputs(form).values())
    if magnitudes:
        a, b, c = np.abs(a), np.abs(b), np.abs(c)
    if form.kind == "sparse":
        a = whole(form, a)
    if form.kind == "quads":
        parts = zip(np.split(a, 4), np.split(b, 4, axis=1), np.split(c, 4))
        return np.concatenate([one @ two + three for one, two, three in parts])
    if form.a == "b1":
        both = a[:, :, None] & b[None] if "and" in form.extra else a[:, :, None] ^ b[None]
        return both.sum(axis=1) + c
    result = a @ b + c
    if "satfinite" in form.extra:
        result = np.clip(result, -(1 << 31), (1 << 31) - 1)
    return result


# Where mma wants elements: 9.7.14.5, figures of the fragments.


def place(form: Form, which: str, row: int, column: int) -> tuple[int, int, int]:
    """Lane, register, and number in the register of an element."""
    if form.kind == "quads":
        return _quad_place(form, which, row, column)
    if which in "cd":
        type_ = form.c if which == "c" else form.d
        lane = row % 8 * 4 + column // 2
        if type_ == "f16":
            return lane, row // 8, column % 2
        return lane, row // 8 * 2 + column % 2, 0
    type_ = form.a if which == "a" else form.b
    each = max(32 // SIZES[type_], 1)
    line, at = (row, column) if which == "a" else (column, row)
    lane = line % 8 * 4 + at // each % 4
    register = at // (4 * each)
    if which == "a" and form.m == 16:
        register = register * 2 + line // 8
    return lane, register, at % each


def _quad_place(form: Form, which: str, row: int, column: int) -> tuple[int, int, int]:
    if which == "b":
        quad, column = divmod(column, 8)
    else:
        quad, row = divmod(row, 8)
    by_row = dict(zip("ab", form.layouts.split("."))).get(which) == "row"
    if which in "cd":
        lane, number = row % 4 + 16 * (row // 4), column
        if (form.c if which == "c" else form.d) == "f32":
            lane, number = row % 2 + (column & 2) + 16 * (row // 4), column & 5 | row & 2
            return lane + 4 * quad, number, 0
    elif which == "a":
        upper = 16 * (row // 4)
        lane, number = (row % 4 + upper, column) if by_row else (column + upper, row % 4)
    else:
        upper = 16 * (column // 4)
        lane, number = (row + upper, column % 4) if by_row else (column % 4 + upper, row)
    return lane + 4 * quad, number // 2, number % 2


def words(form: Form, which: str, bits: Any) -> Any:
    """A matrix as registers of lanes."""
    types = {"a": form.a, "b": form.b, "c": form.c, "d": form.d}
    size, word = SIZES[types[which]], 64 if form.a == "f64" else 32
    count = bits.size * size // word // 32
    found = np.zeros((count, 32), "u8")
    for (row, column), value in np.ndenumerate(bits):
        lane, register, number = place(form, which, row, column)
        found[register, lane] |= int(value) << number * size
    return found.astype(f"u{word // 8}")


def matrix(form: Form, registers: Any) -> Any:
    """d of mma from registers: values."""
    m = 4 * form.m if form.kind == "quads" else form.m
    result = np.zeros((m, form.n), "i8" if form.d == "s32" else "f8")
    codes = {"f16": "f2", "f32": "f4", "f64": "f8", "s32": "i4"}
    parts = registers.view(codes[form.d]).reshape(registers.shape[0], 32, -1)
    for row in range(m):
        for column in range(form.n):
            lane, register, number = place(form, "d", row, column)
            result[row, column] = parts[register, lane, number]
    return result


# Kernels.

_REGISTERS: Final = {"f32": ".f32", "f64": ".f64", "tf32": ".b32"}


def _counts(form: Form) -> dict[str, int]:
    """Registers of each fragment; of wmma the ISA's table 9.7.14.4."""
    word = 64 if form.a == "f64" else 32
    sizes = {
        "a": form.m * form.k * SIZES[form.a],
        "b": form.k * form.n * SIZES[form.b],
        "c": form.m * form.n * SIZES[form.c],
        "d": form.m * form.n * SIZES[form.d],
    }
    if form.kind == "sparse":
        sizes["a"] //= 2
    if form.kind == "quads":
        sizes = {which: 4 * bits for which, bits in sizes.items()}
    found = {which: max(bits // word // 32, 1) for which, bits in sizes.items()}
    if form.kind == "wmma" and form.a == "f16":
        found |= {"a": 8, "b": 8}
    return found


def _type(type_: str) -> str:
    return _REGISTERS.get(type_, ".b32" if type_ != "f64" else ".f64")


def kernel_text(form: Form, name: str) -> str:
    """A kernel of the addresses of a, b, c and d, and of metadata if a is sparse."""
    return _wmma_text(form, name) if form.kind == "wmma" else _mma_text(form, name)


def _head(form: Form, name: str) -> tuple[list[str], dict[str, str]]:
    counts = _counts(form)
    types = {"a": form.a, "b": form.b, "c": form.c, "d": form.d}
    which_all = "abcde" if form.kind == "sparse" else "abcd"
    parameters = ", ".join(f".param .u64 p{which}" for which in which_all)
    lines = [f".visible .entry {name}({parameters}) {{", ".reg .b64 %p<8>; .reg .b32 %t<2>;"]
    lists = {}
    for number, which in enumerate("abcd"):
        lines.append(f".reg {_type(types[which])} %{which}<{counts[which]}>;")
        lines.append(f"ld.param.u64 %p{number}, [p{which}];")
        lists[which] = "{" + ", ".join(f"%{which}{n}" for n in range(counts[which])) + "}"
    return lines, lists


def _mma_text(form: Form, name: str) -> str:
    lines, lists = _head(form, name)
    counts, types = _counts(form), {"a": form.a, "b": form.b, "c": form.c, "d": form.d}
    nbytes = 8 if form.a == "f64" else 4
    lines.append("mov.u32 %t0, %laneid;")
    for number, which in enumerate("abcd"):
        lines.append(f"mad.wide.u32 %p{number}, %t0, {nbytes}, %p{number};")
        if which == "d":
            break
        type_ = _type(types[which])
        for n in range(counts[which]):
            lines.append(f"ld.global{type_} %{which}{n}, [%p{number}+{n * 32 * nbytes}];")
    size = f"m{form.m}n{form.n}k{form.k}"
    parts = f"{form.d}.{form.a}.{form.b}.{form.c}"
    ending = f".{parts}{form.extra}" if "popc" in form.extra else f"{form.extra}.{parts}"
    operands = ", ".join(lists[which] for which in "dabc")
    kind = "mma"
    if form.kind == "sparse":
        lines += [".reg .b32 %e;", "ld.param.u64 %p4, [pe];", "mad.wide.u32 %p4, %t0, 4, %p4;"]
        lines.append("ld.global.b32 %e, [%p4];")
        kind, operands = "mma.sp::ordered_metadata", f"{operands}, %e, {form.selector}"
    lines.append(f"{kind}.sync.aligned.{size}.{form.layouts}{ending} {operands};")
    for n in range(counts["d"]):
        lines.append(f"st.global{_type(form.d)} [%p3+{n * 32 * nbytes}], %d{n};")
    return "\n".join([*lines, "ret;", "}"])


def _wmma_text(form: Form, name: str) -> str:
    lines, lists = _head(form, name)
    size = f"m{form.m}n{form.n}k{form.k}"
    row_a, row_b = form.layouts.split(".")
    layouts = {"a": row_a, "b": row_b, "c": "row"}
    sub = ".sub" if SIZES[form.a] < 8 else ""
    for number, which in enumerate("abc"):
        type_ = {"a": form.a, "b": form.b, "c": form.c}[which]
        stride = _stride(form, which, layouts[which])
        lines.append(
            f"wmma.load.{which}.sync.aligned.{layouts[which]}.{size}.global.{type_} "
            f"{lists[which]}, [%p{number}], {stride};"
        )
    operands = ", ".join(lists[which] for which in "dabc")
    if form.a == "f16":
        types = f"{form.d}.{form.c}"
    else:
        types = f"{form.d}.{form.a}.{form.b}.{form.c}"
    if form.a == "b1":
        lines.append(f"wmma.mma{form.extra}.sync.aligned.row.col.{size}.{types} {operands};")
    else:
        lines.append(f"wmma.mma.sync.aligned.{form.layouts}.{size}.{types} {operands};")
    lines.append(
        f"wmma.store.d.sync.aligned.col.{size}.global.{form.d} [%p3], {lists['d']}, {form.m + 8};"
    )
    assert sub in ("", ".sub")
    return "\n".join([*lines, "ret;", "}"])


def _stride(form: Form, which: str, layout: str) -> int:
    sizes = {"a": (form.m, form.k), "b": (form.k, form.n), "c": (form.m, form.n)}
    rows, columns = sizes[which]
    more = 256 // SIZES[form.a] if SIZES[form.a] < 32 and which != "c" else 8
    return (columns if layout == "row" else rows) + more


def _in_memory(form: Form, which: str, layout: str, bits: Any) -> Any:
    """Bytes of a matrix whose lines are longer than they need be."""
    type_ = {"a": form.a, "b": form.b, "c": form.c}[which]
    lines = bits if layout == "row" else bits.T
    stride, size = _stride(form, which, layout), SIZES[type_]
    padded = np.zeros((lines.shape[0], stride), "u8")
    padded[:, : lines.shape[1]] = lines
    if size >= 8:
        return padded.astype(f"u{size // 8}")
    each = 8 // size
    shifts = np.arange(each, dtype="u8") * size
    return (padded.reshape(-1, each) << shifts).sum(axis=1).astype("u1")


def run(device: gpu.Device, form: Form) -> tuple[bytes, Any]:
    """What a device gives: the bytes of d, and its values as a matrix."""
    module = device.load(HEAD + kernel_text(form, "k"))
    given = inputs(form)
    if form.kind != "wmma":
        sources = [words(form, which, given[which][0]) for which in "abc"]
        out = np.zeros((_counts(form)["d"], 32), sources[0].dtype)
    else:
        layouts = {**dict(zip("ab", form.layouts.split("."))), "c": "row"}
        sources = [_in_memory(form, w, layouts[w], given[w][0]) for w in "abc"]
        code = {"f16": "f2", "f32": "f4", "f64": "f8", "s32": "i4"}[form.d]
        out = np.zeros((form.n, form.m + 8), code)
    given_arrays = (*sources, out, *([metadata(form)] if form.kind == "sparse" else []))
    arrays = [gpu.to_device(np.ascontiguousarray(one), device) for one in given_arrays]
    module["k"].launch(1, 32, *arrays)
    device.synchronize()
    arrays[3].to_host(out)
    values = matrix(form, out) if form.kind != "wmma" else out[:, : form.m].T.astype("f8")
    return out.tobytes(), values


def record(path: Path) -> None:
    """Write what the first GPU gives."""
    device = gpu.Device("cuda:0")
    found, failed = {}, []
    for name, form in forms().items():
        try:
            data, values = run(device, form)
        except gpu.Error as error:
            failed.append(f"{name}: {error}")
            continue
        wanted = product(form)
        worst = float(np.abs(values - wanted).max())
        print(f"{name}: {worst:.3g}")
        found[name] = base64.b64encode(zlib.compress(data, 9)).decode()
    print("\n".join(failed))
    properties = device.properties
    path.write_text(json.dumps({"device": properties.name, "forms": found}, indent=0) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]) if len(sys.argv) > 1 else VECTORS)
