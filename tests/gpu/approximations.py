"""How far the `.approx` instructions of a device are from the exact result.

``python -m tests.gpu.approximations`` prints the largest difference on every device, a million
inputs each, beside what the PTX ISA 9.0 (9.7.3) allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from anyarch import gpu
from tests.gpu.forms import COUNT, Form, module_text, plain, results

Values = Any  # arrays of NumPy


class Approximation(NamedTuple):
    """A form, its exact result, and between which inputs the ISA bounds the error.

    `relative` says how errors count; `bound` is a power of two, None where the ISA names none.
    """

    form: Form
    exact: Callable[..., Values]
    low: float
    high: float
    relative: bool
    bound: float | None


def _rows() -> list[Approximation]:
    tiny, huge = 2.0**-126, 2.0**126

    def row(
        name: str,
        exact: Callable[..., Values],
        low: float,
        high: float,
        bound: float | None,
        relative: bool = True,
    ) -> Approximation:
        type_ = name.rpartition(".")[2]
        sources = f"{type_} {type_}" if name.startswith("div") else type_
        return Approximation(plain(name, sources, type_), exact, low, high, relative, bound)

    return [
        row("rcp.approx.f32", lambda x: 1 / x, tiny, huge, -23),
        row("rcp.approx.ftz.f32", lambda x: 1 / x, tiny, huge, -23),
        row("div.approx.f32", lambda x, y: x / y, 2.0**-60, 2.0**60, -22),
        row("div.full.f32", lambda x, y: x / y, 2.0**-60, 2.0**60, -22),
        row("sqrt.approx.f32", np.sqrt, tiny, 2.0**127, -23),
        row("sqrt.approx.ftz.f32", np.sqrt, tiny, 2.0**127, -23),
        row("rsqrt.approx.f32", lambda x: 1 / np.sqrt(x), tiny, 2.0**127, -22.9),
        row("rsqrt.approx.ftz.f32", lambda x: 1 / np.sqrt(x), tiny, 2.0**127, -22.9),
        row("sin.approx.f32", np.sin, -2 * math.pi, 2 * math.pi, -20.5, False),
        row("cos.approx.f32", np.cos, -2 * math.pi, 2 * math.pi, -20.5, False),
        row("lg2.approx.f32", np.log2, 0.5, 2.0, -22, False),
        row("ex2.approx.f32", np.exp2, -126.0, 127.0, -22),
        row("ex2.approx.ftz.f32", np.exp2, -126.0, 127.0, -22),
        row("tanh.approx.f32", np.tanh, -10.0, 10.0, -11),
        row("tanh.approx.f16", np.tanh, -8.0, 8.0, -10.987, False),
        row("ex2.approx.f16", np.exp2, -14.0, 15.0, -9.9),
        row("rcp.approx.ftz.f64", lambda x: 1 / x, 2.0**-1000, 2.0**1000, None),
        row("rsqrt.approx.f64", lambda x: 1 / np.sqrt(x), 2.0**-1000, 2.0**1000, None),
    ]


ROWS: Final = _rows()


def largest_error(device: gpu.Device, row: Approximation) -> float:
    """The largest error, as the base-2 logarithm."""
    rng = np.random.default_rng(1)
    dtype = {"f16": "f2", "f32": "f4", "f64": "f8"}[row.form.result]
    arrays = []
    for _ in row.form.sources:
        if row.low > 0:  # evenly over the exponents
            values = np.exp2(rng.uniform(math.log2(row.low), math.log2(row.high), COUNT))
        else:
            values = rng.uniform(row.low, row.high, COUNT)
        arrays.append(values.astype(dtype))
    module = device.load(module_text([row.form]))
    found = np.frombuffer(results(device, module, 0, row.form, COUNT, arrays), dtype)
    wide = "f8" if dtype != "f8" else "g"
    exact = row.exact(*(array.astype(wide) for array in arrays))
    error = np.abs(found.astype(wide) - exact)
    if row.relative:
        error = error / np.abs(exact)
    worst = float(np.max(error))
    return math.log2(worst) if worst else -math.inf


def main() -> None:
    """Print the table."""
    found = gpu.devices()
    names = " | ".join(device.id for device in found)
    print(f"| form | inputs | error | allowed | {names} |")
    print("|---" * (4 + len(found)) + "|")
    for row in ROWS:
        kind = "relative" if row.relative else "absolute"
        bound = "" if row.bound is None else f"2^{row.bound:g}"
        cells = " | ".join(f"2^{largest_error(device, row):.2f}" for device in found)
        print(f"| {row.form.name} | {row.low:.3g} to {row.high:.3g} | {kind} | {bound} | {cells} |")


if __name__ == "__main__":
    main()
