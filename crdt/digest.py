"""The state digest: 32 bytes that are equal exactly when two ledgers agree on every head and every balance.

SHA-256 over STATE_TAG, then every head by replica id, then every card by card id (both as unsigned bytes):

    head: "H" | replica 16 | seq u64 | hash 32
    card: "C" | length u8 | card | sum i64 | opening u64

A card whose sum and opening are both zero is left out: a ledger that met it and one that did not agree on
it.
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

from crdt.errors import MisuseError
from crdt.facts import NEW_CARD, CardId, CardState, ReplicaId
from crdt.frontier import Head

STATE_TAG: Final = b"farebox state v1\n"
_HEAD: Final = struct.Struct(">c16sQ32s")
_CARD: Final = struct.Struct(">qQ")


class StateDigest:
    """Takes heads, then cards, each in ascending order, one by one: a store can stream a million of them."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256(STATE_TAG)
        self._last: tuple[int, bytes] = (0, b"")

    def head(self, replica: ReplicaId, head: Head) -> None:
        """Add a replica's head. Raises MisuseError when it is out of order or after a card."""
        self._in_order(1, replica)
        self._sha.update(_HEAD.pack(b"H", replica, head.seq, head.hash))

    def card(self, card: CardId, state: CardState) -> None:
        """Add a card. Raises MisuseError when it is out of order."""
        self._in_order(2, card)
        if state != NEW_CARD:
            self._sha.update(b"C%c%b%b" % (len(card), card, _CARD.pack(*state)))

    def digest(self) -> bytes:
        """The digest of everything added so far, 32 bytes."""
        return self._sha.digest()

    def _in_order(self, section: int, key: bytes) -> None:
        if (section, key) <= self._last:
            raise MisuseError("a state digest takes heads and then cards, each once and in ascending order")
        self._last = (section, key)


def state_digest(heads: Iterable[tuple[ReplicaId, Head]], cards: Iterable[tuple[CardId, CardState]]) -> bytes:
    """The digest of sorted heads and sorted cards."""
    digest = StateDigest()
    for replica, head in heads:
        digest.head(replica, head)
    for card, state in cards:
        digest.card(card, state)
    return digest.digest()
