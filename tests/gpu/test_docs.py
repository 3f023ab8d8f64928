"""The first example of docs/gpu.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "gpu.md"


def test_the_first_example() -> None:
    match = re.search(r"```python\n(.*?)```\n\nprints `(.*?)`", DOCS.read_text(), re.DOTALL)
    assert match is not None
    done = subprocess.run(
        [sys.executable, "-c", match[1]], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == (match[2], "")
