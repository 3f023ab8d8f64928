"""The first example of docs/gpu.md, and README.md's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["docs/gpu.md", "README.md"])
def test_the_first_example(name: str) -> None:
    text = (ROOT / name).read_text()
    match = re.search(r"```python\n(.*?)```\n\nprints `(.*?)`", text, re.DOTALL)
    assert match is not None
    done = subprocess.run(
        [sys.executable, "-c", match[1]], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == (match[2], "")
