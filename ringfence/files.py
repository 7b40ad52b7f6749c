"""What names a file for ever: the identity that event ids of its rows begin with."""

from __future__ import annotations

import hashlib

FINGERPRINT_BYTES = 1024


def identity_of(first: bytes, generation: int) -> int:
    """64-bit identity of a file by its first bytes (at most FINGERPRINT_BYTES) and how often it was started anew."""
    digest = hashlib.blake2b(first[:FINGERPRINT_BYTES], digest_size=8, salt=generation.to_bytes(8, "big"))
    return int.from_bytes(digest.digest(), "big")
