"""``python -m anyarch``."""

from __future__ import annotations

from anyarch.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
