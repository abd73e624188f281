"""What a terminal believes of all cards at one instant: settled balances and held deltas, in one snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from crdt.digest import state_digest
from crdt.facts import Books, CardId, CardState, Delta, ReplicaId
from crdt.frontier import joined
from crdt.store import segment
from crdt.store.blocks import NO_HEAD, facts_of, heads_of, newest_first
from crdt.store.held import Held
from crdt.store.memory import held_in
from crdt.store.other_lives import repeated
from crdt.store.settled import read_standing, settled_cards, settled_heads


def believed_digest(connection: Connection) -> bytes:
    """The state digest of everything this ledger holds or has settled."""
    standing = read_standing(connection)
    heads = joined(settled_heads(connection, standing), heads_of(connection))
    held = held_in(connection, standing)
    cards = _believed_cards(settled_cards(connection, standing), held)
    return state_digest(sorted(heads.items()), cards)


def believed_books(connection: Connection) -> Books:
    """Settled balances and held deltas on one side; every card's balance, one by one, on the other."""
    standing = read_standing(connection)
    held = held_in(connection, standing)
    settled = 0
    beaten = held.openings_minor - sum(held.openings.values())
    for card, state in settled_cards(connection, standing):
        settled += state.balance_minor
        if card in held.openings:
            beaten += min(state.opening_minor, held.openings[card])
    cards = _believed_cards(settled_cards(connection, standing), held)
    balances = sum(state.balance_minor for _, state in cards)
    return Books(settled + held.sum_minor, balances, beaten)


def card_history(connection: Connection, replica: ReplicaId, card: CardId, limit: int) -> list[Delta]:
    """The last facts about a card that this ledger still holds as facts, newest first, each once."""
    twice = repeated(connection, settled_heads(connection, read_standing(connection)))
    head = heads_of(connection, [replica]).get(replica, NO_HEAD)
    facts = segment.numbered(replica, head.seq, segment.read(connection))
    found = [fact for fact in reversed(facts) if fact.card == card]
    for block in newest_first(connection):
        if len(found) >= limit:
            break
        columns = facts_of(block)
        if card in columns.cards.ids:
            author = block.header.replica
            deltas = columns.deltas(author, block.header.first_seq)
            those = [delta for delta in reversed(deltas) if delta.card == card]
            found += twice.left_of(those) if author in twice.lives else those
    return found[:limit]


def _believed_cards(
    settled: Iterator[tuple[CardId, CardState]], held: Held
) -> Iterator[tuple[CardId, CardState]]:
    """Every card that is settled or held, by ascending id, with its state."""
    waiting = sorted(held.sums, reverse=True)
    for card, state in settled:
        while waiting and waiting[-1] < card:
            new = waiting.pop()
            yield new, held.state(new)
        if waiting and waiting[-1] == card:
            state = state.combined(held.state(waiting.pop()))
        yield card, state
    while waiting:
        new = waiting.pop()
        yield new, held.state(new)
