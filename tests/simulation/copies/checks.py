"""What holds for copies of one storage: no ride counts twice, and none drops (invariants 4, 5 and 6)."""

from __future__ import annotations

from collections import Counter
from typing import Final

from crdt.block import parse
from crdt.facts import CardId, Kind
from crdt.store.blocks import NO_HEAD
from edge.errors import HubRefused
from edge.sync import Outcome
from tests.simulation.copies.body import Body
from tests.simulation.copies.hub import MANY
from tests.simulation.copies.rides import Ride, facts_in, label, raws_in
from tests.simulation.copies.world import CARDS, World
from tests.simulation.oracle import Broken, expect

ROUNDS: Final = 6  # of everybody, until all is said
TRIES: Final = 6  # of one, until it is at the end

_OPEN: Final = "SELECT * FROM open_delta WHERE place < (SELECT again_from FROM terminal) ORDER BY place"


def look(body: Body) -> None:
    """Its view is what the settlement in it counted and what it has beyond that, and none of its own rides is
    missing.

    Of a settlement that the hub has forgotten nobody knows what it says.
    """
    world, position = body.world, body.position
    if position in world.stale:
        return
    settled = world.hub.history.get(position) if position[1] else Counter()
    if settled is None:
        raise Broken(f"{body.name} has a settlement that the hub never made")
    count = settled + _beyond(body)
    for card in CARDS:
        due, found = _sum(count, card), body.ledger.view(card).balance_minor
        wrong = [label(ride) for ride in count if ride.amount_minor in (found - due, due - found)]
        expect(found == due, f"{body.name} counts {found - due} more than there is, maybe of {wrong}")
    lost = {ride for ride in body.rides if not count[ride]} - world.hub.adopted
    expect(not lost, f"{body.name} has lost {sorted(map(label, lost))}")


def _beyond(body: Body) -> Counter[Ride]:
    """What it counts beyond its settlement: what is open, in blocks, and what peers say.

    Where an identity of it was replaced and has to write again, what another life of that one's terminal says
    as well counts once.
    """
    ledger, writer = body.ledger, body.identity.replica
    said = [(writer, Ride.of_row(row[1:])) for row in body.disk.rows(_OPEN)]
    opened = {ride for _, ride in said}
    reach, listed, own = ledger.settled_frontier(), ledger.revocations(), {writer, *ledger.former(MANY)}
    again = {writer} & listed.replaced
    for header, facts in ((parse(raw).header, facts_in(raw)) for raw in raws_in(body.disk, "block")):
        author, beyond = header.replica, reach.get(header.replica, NO_HEAD).seq + 1 - header.first_seq
        said += ((author, ride) for ride in facts[max(0, beyond) :])
        if author in own & listed.replaced and header.first_seq > listed.cut_offs[author]:
            again.add(author)
    for deltas in ledger._memory.believed._segments.values():
        said += ((delta.replica, Ride.of(delta)) for delta in deltas)
    if again and ledger.suspended:
        written = opened | {ride for author, ride in said if author in again}
        authors = ledger.authors()
        terminals = {authors[one].terminal for one in again}
        lives = {one for one in authors if authors[one].terminal in terminals} - own
        said = [(author, ride) for author, ride in said if author not in lives or ride not in written]
    return Counter(ride for _, ride in said if ride.kind is Kind.FARE)


def _sum(count: Counter[Ride], card: CardId) -> int:
    return sum(ride.amount_minor * times for ride, times in count.items() if ride.card == card)


def check_books(world: World) -> None:
    """The hub's balances are its facts."""
    count = world.hub.count()
    for card in CARDS:
        due = _sum(count, card)
        (found,) = world.hub.disk.rows("SELECT sum(sum_minor) FROM card WHERE card = ?", card)[0]
        expect((found or 0) == due, f"the hub's balance of {card.hex()} is {found}, and its facts are {due}")


def heal(world: World) -> None:
    """Everything works again, and an operator decides: then every ride that anybody has counts once, at the
    hub and in every view.

    All start anew: what a peer has not sealed is believed until then.
    """
    world.trace.append(("heal",))
    world.faults = 0.0
    due = set().union(*map(_kept, world.bodies))
    for body in world.bodies:
        body.start()
    while world.late:
        world.arrive_late(0)
    _quiet(world)
    undecided = world.hub.undecided()
    if undecided:
        world.trace.append(("adopt",))
        world.adopt(undecided)
        _quiet(world)
    count = world.hub.count()
    wrong = {label(ride): times for ride, times in count.items() if times not in (0, 1)}
    wrong |= {label(ride): count[ride] for ride in due if count[ride] != 1}
    expect(not wrong, f"at the end the hub counts {wrong}")
    facts = {fact.kind for raw in raws_in(world.hub.disk, "block") for fact in facts_in(raw)}
    expect(not world.careful or Kind.DUPLICATE not in facts, "copies that were compared wrote the same")
    for body in world.bodies:
        for card in CARDS:
            same = body.ledger.view(card).balance_minor == _sum(count, card)
            expect(same, f"{body.name} differs from the hub")


def _kept(body: Body) -> set[Ride]:
    """All that a body can bring: what was lost with other storage, nobody can."""
    raws = [*raws_in(body.disk, "block"), *raws_in(body.disk, "quarantine")]
    return body.rides | {Ride.of_row(row[1:]) for row in body.disk.rows(_OPEN)}.union(*map(facts_in, raws))


def _quiet(world: World) -> None:
    """Everybody syncs until nobody has anything to say, and the hub does what waits."""
    for _ in range(ROUNDS):
        before = world.hub.position
        for body in world.bodies:
            _come_to_an_end(world, body)
            world.hub.work()
            check_books(world)
        if world.hub.position == before:
            held = {body.name: body.ledger.held()[0] for body in world.bodies if body.ledger.held()[0]}
            expect(not held, f"at the end these hold what the hub has not settled: {held}")
            return
    raise Broken(f"there is something to say after {ROUNDS} rounds")


def _come_to_an_end(world: World, body: Body) -> None:
    for attempt in range(TRIES):
        world.trace.append(("sync",))
        came = world.sync(body)
        look(body)
        if isinstance(came, Outcome) and came.complete:
            expect(not body.ledger.suspended, f"{body.name} is at the end, and seals nothing")
            return
        if isinstance(came, HubRefused) and came.code in ("revoked", "unknown_author") and attempt:
            world.trace.append(("pair",))
            world.pair(body, f"bus {body.name}")  # or else it ends another copy's turn
            look(body)
    raise Broken(f"{body.name} does not come to an end: {came}")
