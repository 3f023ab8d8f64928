"""The first example of docs/gpu.md."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "gpu.md"


@pytest.mark.skipif(find_spec("anyarch.gpu.backends.cpu") is None, reason="needs the cpu backend")
def test_the_first_example() -> None:
    match = re.search(r"```python\n(.*?)```\n\nprints `(.*?)`", DOCS.read_text(), re.DOTALL)
    assert match is not None
    done = subprocess.run(
        [sys.executable, "-c", match[1]], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == (match[2], "")
