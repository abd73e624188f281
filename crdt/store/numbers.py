"""The cards by their numbers, in memory: what turns a short block back into the block that was signed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select

from crdt.facts import MAX_CARD_BYTES, CardId
from crdt.store.balances import Met, read_standing
from crdt.store.hub_schema import CARD

_SLOT: Final = 1 + MAX_CARD_BYTES  # a length, and the id


class CardNumbers:
    """Which card has which number. 17 bytes a card; any thread may use it.

    Numbers are dense, so those known are always 1 to some last one. Those that this process gives it learns
    with the merge; those before its start, and those of other processes, it reads when they are asked for.
    """

    def __init__(self) -> None:
        self._slots = bytearray()
        self._mutex = threading.Lock()

    def learn(self, met: Met) -> None:
        """These cards were given numbers, durably."""
        with self._mutex:
            self._learn(met.first, met.cards)

    def cards(self, connection: Connection, numbers: Sequence[int]) -> list[CardId | None]:
        """Within a read: the cards with these numbers; None for a number no card has."""
        if max(numbers, default=0) > self._known < read_standing(connection).numbered:
            self._read(connection)
        with self._mutex:
            return [self._card(number) for number in numbers]

    @property
    def _known(self) -> int:
        return len(self._slots) // _SLOT

    def _read(self, connection: Connection) -> None:
        known = self._known
        query = select(CARD.c.number, CARD.c.card).where(CARD.c.number > known)
        count = read_standing(connection).numbered - known
        slots = bytearray(count * _SLOT)
        with connection.execute(query.execution_options(yield_per=10_000)) as rows:
            for number, card in rows:
                at = (number - known - 1) * _SLOT
                slots[at] = len(card)
                slots[at + 1 : at + 1 + len(card)] = card
        with self._mutex:
            self._slots += slots[(self._known - known) * _SLOT :]

    def _learn(self, first: int, cards: Sequence[CardId]) -> None:
        if first != self._known + 1:
            return  # there are others between; all of them are read when they are asked for
        self._slots += b"".join(bytes([len(card)]) + card.ljust(MAX_CARD_BYTES, b"\0") for card in cards)

    def _card(self, number: int) -> CardId | None:
        at = (number - 1) * _SLOT
        if not 0 <= at < len(self._slots):
            return None
        return CardId(bytes(self._slots[at + 1 : at + 1 + self._slots[at]]))
