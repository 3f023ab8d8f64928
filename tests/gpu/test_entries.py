"""The scanner of kernels' parameters agrees with the parser of whole PTX."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyarch.gpu.entries import find_entries

FILES = sorted(Path(__file__).parents[2].glob("*/**/*.ptx"))


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_they_agree(path: Path) -> None:
    parser = pytest.importorskip("anyarch.gpu.ptx", reason="needs the parser of PTX")
    text = path.read_text()
    assert find_entries(text) == parser.parse_signatures(text)
