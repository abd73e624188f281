"""Work in the background that fails: nobody waits for it, so the log says so, once."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any

from crdt.store.health import first_line
from crdt.store.store import Store

_log = logging.getLogger(__name__)


class Trouble:
    """Judges the steps of one kind of background work."""

    def __init__(self, database: Store, sentence: str) -> None:
        """`sentence`: what does not work now, and what that means for people."""
        self._database = database
        self._sentence = sentence
        self._told = False

    def judge(self, step: Future[Any]) -> bool:
        """Whether the step was done. The first of several failures in a row is logged, without any values.

        Not that the database was closed meanwhile: that ends all background work.
        """
        if step.cancelled():
            return False
        error = step.exception()
        if error is not None and not self._told and not self._database.closed:
            _log.error("%s (%s: %s)", self._sentence, type(error).__name__, first_line(error))
        self._told = error is not None
        return error is None
