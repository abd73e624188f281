"""Importing what only some commands consist of, which takes a Pi seconds."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from hub.errors import Stopped


@contextmanager
def importing() -> Iterator[None]:
    """Nothing of what is imported in the block is ever garbage: it is not searched for some, then nor later.

    Raises Stopped where Ctrl-C ends it.
    """
    gc.disable()
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("Stopped before it began.") from None
    gc.freeze()
    gc.enable()
