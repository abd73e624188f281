"""A stick that is full, for tests of what is written to one."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def capped_files(limit_bytes: int) -> Iterator[None]:
    """No file that this process writes may be larger, as on a full stick."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
