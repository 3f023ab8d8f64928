"""``python -m benchmarks`` is ``python -m benchmarks.suite``."""

import sys

from benchmarks.suite import main

sys.exit(main())
