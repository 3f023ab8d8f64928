"""The scanner of kernels' parameters agrees with the parser of whole PTX."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyarch.gpu.entries import find_entries
from anyarch.gpu.ptx import parse_signatures

FILES = sorted(Path(__file__).parents[2].glob("*/**/*.ptx"))


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_they_agree(path: Path) -> None:
    text = path.read_text()
    assert find_entries(text) == parse_signatures(text)
