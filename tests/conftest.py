"""For all tests."""

from __future__ import annotations

import signal

# A shell starts background jobs with SIGINT ignored; the tests of Ctrl-C need Python's handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
