"""Instructions on the cpu against what a GPU gave: vectors/forms.json, recorded by forms.py.

The first 4096 inputs of each form; ANYARCH_GPU_VECTORS=all compares the million.
"""

from __future__ import annotations

import json
import os
from itertools import groupby
from typing import Final

import pytest

from anyarch import gpu

pytest.importorskip("numpy", reason="inputs are made with NumPy")

from tests.gpu import forms

RECORD: Final = json.loads(forms.VECTORS.read_text())
FORMS: Final = forms.forms()
EVERYTHING: Final = os.environ.get("ANYARCH_GPU_VECTORS") == "all"


def family(name: str) -> str:
    """What forms are tested together: those of an instruction, of cvt those of a rounding."""
    parts = name.replace(" ", ".").split(".")
    return ".".join(parts[: 2 if parts[0] in ("cvt", "setp") else 1])


FAMILIES: Final = {
    name: list(group) for name, group in groupby(sorted(FORMS, key=family), key=family)
}


def test_every_form_is_recorded() -> None:
    assert list(RECORD["forms"]) == list(FORMS)
    assert (RECORD["count"], RECORD["prefix"]) == (forms.COUNT, forms.PREFIX)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cpu_does_what_the_gpu_did(name: str) -> None:
    device = gpu.Device("cpu")
    chosen = [FORMS[form] for form in FAMILIES[name]]
    module = device.load(forms.module_text(chosen))
    count = forms.COUNT if EVERYTHING else forms.PREFIX
    different = []
    for number, form in enumerate(chosen):
        found = forms.digest(forms.results(device, module, number, form, count))
        if found != RECORD["forms"][form.name][EVERYTHING]:
            different.append(form.name)
    assert different == []
