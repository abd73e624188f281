"""Where tests put files that need not outlive a power cut."""

from pathlib import Path
from shutil import disk_usage
from typing import Final

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - for new directories in it, with names of their own


def memory(room_bytes: int = 0) -> Path | None:
    """A directory in memory with so much free, for `tempfile`; None, its usual place, where there is none."""
    return _MEMORY if _MEMORY.is_dir() and disk_usage(_MEMORY).free >= room_bytes else None
