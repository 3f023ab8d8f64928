"""The code of blocks as it lies in memory: what ``engine/templates`` has put there.

Code begins with a header, the handler that the block's first record had. Then come the templates of
the block's records, one behind the other; before some an instruction has rsi point to the record.
"""

from __future__ import annotations

import struct
from ctypes import string_at
from typing import Final

NEEDS_RECORD: Final = 1  # of a row's flags: rsi has to point to the record
ADVANCE_NBYTES: Final = 7  # of the instruction that has rsi point to a later record
CODE_HEADER: Final = 16  # bytes
HANDLER_PREFIX: Final = 16  # bytes before a handler; the first four are the number of its row
# A template: its code and the bytes of that, the bytes of the records that it is for, the first of
# its patches and how many there are, flags, which record accesses memory by its offset, nothing.
ROW: Final = struct.Struct("<IHHIHHHH")


class CodeReader:
    """Finds the record that an address in a block's code belongs to.

    ``rows`` is the host pointer of the templates' rows.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def find(self, record: int, code: int, host: int) -> int:
        """Which record of the block whose first is ``record`` and whose code is at ``code`` was
        accessing memory at ``host``."""
        (handler,) = _read("<Q", code - CODE_HEADER)
        known = record
        while True:
            (number,) = _read("<I", handler - HANDLER_PREFIX)
            _, length, nbytes, _, _, flags, faulting, _ = _read(
                ROW.format, self._rows + ROW.size * number
            )
            if flags & NEEDS_RECORD and record != known:
                code += ADVANCE_NBYTES
                known = record
            code += length
            if host < code:
                return record + faulting
            record += nbytes
            (handler,) = _read("<Q", record)


def _read(layout: str, pointer: int) -> tuple[int, ...]:
    return struct.unpack(layout, string_at(pointer, struct.calcsize(layout)))
