"""What tests of restored and copied terminals have in common."""

from collections import Counter
from pathlib import Path

from crdt.block import parse
from crdt.facts import Draft, Kind, ReplicaId
from crdt.store.conceding import Conceded
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, OpenTerminal, card, deltas_of

FARE = Draft(Kind.FARE, -250)
EVERYTHING = 1 << 24
NEW = world.terminal(7)


def tap(terminal: OpenTerminal, at_ms: int, number: int | None = None) -> None:
    """A tap that no other is like: its time is its own."""
    which = card(at_ms % 5 if number is None else number)
    terminal.ledger.transact(which, lambda _view: ([FARE], None), at_ms)


def suspended(terminal: OpenTerminal) -> bool:
    """Asked anew each time."""
    return terminal.ledger.suspended


def canonical(fleet: Fleet, replica: ReplicaId) -> list[bytes]:
    return fleet.hub.blocks_after(replica, 0, EVERYTHING).result()


def concede(fleet: Fleet, terminal: OpenTerminal, replica: ReplicaId) -> Conceded:
    return terminal.ledger.concede(replica, canonical(fleet, replica))


def hub_times(fleet: Fleet) -> Counter[int]:
    """When the fares that the hub counts were taken, and how often each counts."""
    times: Counter[int] = Counter()
    for replica in fleet.hub.heads().result():
        for raw in canonical(fleet, replica):
            times.update(fact.at_ms for fact in deltas_of(parse(raw)))
    return times


def deliver(fleet: Fleet, terminal: OpenTerminal) -> None:
    """Seal, and send the hub all chains as far as it takes them."""
    terminal.ledger.seal()
    authors = terminal.ledger.authors()
    heads = fleet.hub.heads().result()
    for replica, head in terminal.ledger.frontier().items():
        before = heads[replica].seq if replica in heads else 0
        if head.seq > before:
            raws = terminal.ledger.blocks_after(before, EVERYTHING, replica)
            assert not fleet.hub.merge(raws, [authors[replica]]).result().refused


def restored(fleet: Fleet, tmp_path: Path) -> OpenTerminal:
    """A terminal that delivered taps 1 to 6, put back to when it had sealed 1 to 2 and tapped 3 and 4."""
    one = fleet.terminals[0]
    tap(one, 1)
    tap(one, 2)
    deliver(fleet, one)
    tap(one, 3)
    tap(one, 4)
    image = one.image(tmp_path / "image")
    tap(one, 5)
    deliver(fleet, one)
    tap(one, 6)
    deliver(fleet, one)
    one.restore(image)
    return one
