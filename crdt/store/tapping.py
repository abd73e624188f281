"""What a tap does in its transaction: look the card up, and append to the open segment.

Every line here is between a passenger and the light, and runs with caches that the commit before has emptied:
what costs a few hundred nanoseconds in a loop costs a microsecond here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from crdt.certificate import AuthorCertificate
from crdt.errors import MisuseError, NotPermitted
from crdt.facts import MAX_AT_MS, CardId, CardView, Context, Draft
from crdt.store.blocks import SegmentRow
from crdt.store.memory import Memory
from crdt.store.settled import FIND, SettledRow
from crdt.store.terminal_schema import OPEN_DELTA, inserting
from crdt.store.writer import Direct

_INSERT: Final = inserting(OPEN_DELTA)


class Tapping:
    """Looks up and appends for the one who writes here, within a transaction."""

    def __init__(self, memory: Memory, certificate: AuthorCertificate) -> None:
        self._memory = memory
        self._certificate = certificate

    def view(self, sql: Direct, card: CardId, key: bytearray, at_ms: int | None) -> CardView:
        """What is believed of a card; `at_ms`: see Memory.view.

        `key`: the card's bytes once more. For `bytes` the driver looks for an adapter each time, which takes
        as long as to find the row.
        """
        standing = self._memory.standing
        row: SettledRow | None = None
        if standing.overlay_generation:
            row = sql.row(FIND, (standing.overlay_generation, key))
        if row is None:
            row = sql.row(FIND, (standing.base_generation, key))
        return self._memory.view(card, row, at_ms)

    def append(
        self, sql: Direct, card: CardId, key: bytearray, drafts: Sequence[Draft], at_ms: int, context: Context
    ) -> None:
        """Write what was decided on a card, and commit. Raises MisuseError, NotPermitted; see `transact`."""
        if type(at_ms) is not int or not 0 <= at_ms <= MAX_AT_MS:
            raise MisuseError("a time is an integer from 0 to 2**48 - 1, in ms")
        where = (context.route, context.trip, context.stop, context.clock_epoch, context.clock_error_ms)
        rows: list[SegmentRow] = []
        bound: list[tuple[object, ...]] = []
        place, credit_minor = self._memory.last_place, 0
        for draft in drafts:
            place += 1  # `enumerate` would take as long as the rest of this loop
            kind, amount_minor = draft.kind, draft.amount_minor
            if not self._certificate.permits(kind, amount_minor):
                raise NotPermitted(f"this terminal may not write a {kind.name} of {amount_minor}")
            if amount_minor > 0:
                credit_minor += amount_minor
            fact = (int(kind), amount_minor, at_ms, *where)
            rows.append((place, card, *fact))
            bound.append((place, key, *fact))
        if credit_minor:
            self._certificate.check_allowance(self._memory.credit_minor + credit_minor)
        sql.commit(_INSERT, bound)
        self._memory.wrote(card, rows)
