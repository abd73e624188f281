"""A directory's own contents: which names are in it."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make durable which names are in it, for syncing a file does not keep its name. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
