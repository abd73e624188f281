"""The blocks of a terminal's record by who wrote them: identities that wrote to this ledger, or others."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, select, true

from crdt.store.blocks import newest
from crdt.store.schema import BLOCK
from crdt.store.statement import Statement
from crdt.store.terminal_schema import IDENTITY


class Blocks(NamedTuple):
    """Some of the record."""

    fit: ColumnElement[bool]
    newest: Statement  # what `blocks.newest_first` reads of them

    @classmethod
    def that(cls, fit: ColumnElement[bool]) -> Blocks:
        """Those that fit this."""
        return cls(fit, newest(fit))


OWN: Final = Blocks.that(BLOCK.c.replica.in_(select(IDENTITY.c.replica)))
FOREIGN: Final = Blocks.that(~OWN.fit)
ANY: Final = Blocks.that(true())
