"""What a hub writes: new blocks with the balances they change, and facts of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, bindparam, select

from crdt.block import Block, contents, parse, seal
from crdt.certificate import AuthorCertificate
from crdt.columns import Columns
from crdt.errors import MisuseError, NotPermitted
from crdt.facts import CardId, CardState, Context, Delta, Draft, Kind, ReplicaId, check_card, check_time
from crdt.frontier import Head
from crdt.signing import SigningKey
from crdt.store import balances, blocks, claims, moments
from crdt.store.balances import Met
from crdt.store.blocks import Chain
from crdt.store.flags import FlagKey
from crdt.store.hub_schema import REQUEST
from crdt.store.sql import Bulk
from crdt.store.statement import Statement

MAX_REQUEST_CHARS: Final = 64

_PUT_REQUEST: Final = Bulk(REQUEST)
_REQUEST: Final = Statement(select(REQUEST.c.replica, REQUEST.c.seq).where(REQUEST.c.id == bindparam("id")))

NOBODY_MET: Final = Met(0, ())

Money = tuple[CardId, Kind, int]  # one entry's card, kind and minor units


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit changed, for whoever shows the ledger live."""

    position: int  # the settlement position after it; 0 where no balance, card's flag or head changed
    cards: Collection[CardId]  # whose balance, flag or history changed
    replicas: Collection[ReplicaId] = ()  # whose heads moved
    history: bool = False  # the history rows of `cards` are there now; else they may lag
    suspects: Collection[ReplicaId] = ()  # whose evidence in quarantine, or whose flags, changed
    flags: Collection[FlagKey] = ()  # those put on, or taken off
    met: Met = NOBODY_MET  # those of `cards` that were met for the first time, with their numbers
    again: bool = False  # facts may be here now that the hub has adopted, or was told would come
    gone: bool = False  # facts left the record: those that a copy was taken back for, it may be
    evidence: Collection[bytes] = ()  # blocks new in quarantine of which the facts may be here
    asked: int = 0  # the number of the request to compare that one of the last three made; 0: none did

    def about(self, suspects: Collection[ReplicaId], flags: Collection[FlagKey]) -> Change:
        """The same change, which is also about these authors' evidence, and puts these flags on."""
        return replace(self, suspects=suspects, flags=flags)


@dataclass(frozen=True, slots=True)
class Booking:
    """What `append` did. `repeated`: the request had booked before, and nothing was added.

    `booked`: what stands under the request, from now or before. Where it is not what was asked for, the
    request's name was used for something else, and its caller must not be told that the money is there.
    """

    state: CardState  # the card's, now
    head: Head  # of the hub's own chain, now
    repeated: bool
    booked: tuple[Money, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """Facts that the hub is to write about a card itself."""

    card: CardId
    drafts: Sequence[Draft]
    at_ms: int
    context: Context
    request: str  # a name that books once; "" for none

    def check(self, certificate: AuthorCertificate) -> None:
        """Raise MisuseError or NotPermitted unless the hub may write this."""
        check_card(self.card)
        check_time(self.at_ms)
        if len(self.request) > MAX_REQUEST_CHARS or not self.drafts:
            raise MisuseError("a booking needs drafts, and a short name for its request")
        for draft in self.drafts:
            if not certificate.permits(draft.kind, draft.amount_minor):
                raise NotPermitted(f"the hub may not write a {draft.kind.name} of {draft.amount_minor}")

    @property
    def money(self) -> tuple[Money, ...]:
        """What it does to balances: the part in which a repeated order has to be the same."""
        return tuple((self.card, draft.kind, draft.amount_minor) for draft in self.drafts)

    def facts(self, author: ReplicaId, head: Head, first_ms: int) -> list[Delta]:
        """The order as facts after `head`, a millisecond apart."""
        return [
            Delta(
                author,
                head.seq + at,
                self.card,
                draft.kind,
                draft.amount_minor,
                first_ms + at - 1,
                self.context,
            )
            for at, draft in enumerate(self.drafts, 1)
        ]


def record(
    connection: Connection,
    new: Sequence[Block],
    facts: Sequence[Columns],
    chains: Mapping[ReplicaId, Chain],
    hubs: Collection[ReplicaId],
) -> Change:
    """Store admitted blocks, their chains and what they do to balances: one change with one position.

    `hubs`: those of the authors that are identities of the hub: it sells nothing at their moments.
    """
    position = balances.next_position(connection)
    blocks.store_blocks(connection, new)
    blocks.put_heads(connection, ((replica, *chain) for replica, chain in chains.items()), position)
    if hubs:
        moments.note(connection, _written_by(hubs, new, facts))
    claims.drop_held(connection, {replica: chain.head.seq for replica, chain in chains.items()})
    gain = balances.Gain()
    for columns in facts:
        gain.add(columns)
    met = balances.add_gain(connection, gain, position)
    return Change(position, gain.sums.keys(), chains.keys(), met=met)


def book(
    connection: Connection, key: SigningKey, certificate: AuthorCertificate, order: Order
) -> tuple[Booking, Change | None]:
    """Write an order as a block of the hub's own, unless its request has booked before.

    At its time, or the next milliseconds at which the hub has written nothing else of the card.
    """
    head, credit_minor = blocks.chains_of(connection, [key.replica]).get(key.replica, blocks.NO_CHAIN)
    before = _booked(connection, order.request) if order.request else None
    change = None
    if before is None:
        first_ms = moments.free(connection, order.card, order.at_ms, len(order.drafts))
        deltas = order.facts(key.replica, head, first_ms)
        block = seal(key, certificate.fleet, deltas, head.hash)
        head, facts = block.head, contents(block)
        credit_minor += facts.credit_minor()
        certificate.check_allowance(credit_minor)
        change = record(connection, [block], [facts], {key.replica: Chain(head, credit_minor)}, [key.replica])
        if order.request:
            _PUT_REQUEST.run(connection, [(order.request, key.replica, head.seq)])
    state = balances.state_of(balances.read_card(connection, order.card))
    return Booking(state, head, before is not None, before or order.money), change


def _written_by(
    authors: Collection[ReplicaId], blocks_: Sequence[Block], facts: Sequence[Columns]
) -> Iterator[Delta]:
    for block, columns in zip(blocks_, facts, strict=True):
        if block.header.replica in authors:
            yield from columns.deltas(block.header.replica, block.header.first_seq)


def _booked(connection: Connection, request: str) -> tuple[Money, ...] | None:
    """What the hub booked under this request, as `Order.money`; None when nothing."""
    row = _REQUEST.row(connection, id=request)
    if row is None:
        return None
    replica, last_seq = ReplicaId(row[0]), row[1]
    block = parse(blocks.blocks_after(connection, replica, last_seq - 1, 0)[0])  # an order is one block
    deltas = blocks.facts_of(block).deltas(replica, block.header.first_seq)
    return tuple((delta.card, delta.kind, delta.amount_minor) for delta in deltas)
