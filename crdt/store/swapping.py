"""Replacing a secret that several processes may want to replace at once, however a store keeps it."""

from __future__ import annotations

from collections.abc import Callable


def swapped(kept: bytes | None, former: bytes, value: bytes, put: Callable[[bytes], object]) -> bytes:
    """Within a write: `put` a value where `former` or nothing is `kept`; what is kept then."""
    if kept is not None and kept != former:
        return kept
    put(value)
    return value
