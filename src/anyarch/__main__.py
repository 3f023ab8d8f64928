"""``python -m anyarch``."""

from __future__ import annotations

import sys

from anyarch.cli import main

if __name__ == "__main__":
    sys.exit(main())
