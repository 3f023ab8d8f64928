"""BLAKE2, which is quick on the short texts that are digested while a guest waits.

``hashlib`` gives the same function, but loads OpenSSL first, whose digests of long texts are
quicker: who has such imports it there.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # a Python whose own digests are left out
    from hashlib import blake2b

__all__ = ["blake2b"]
