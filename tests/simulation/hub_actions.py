"""What happens at the depot, or to it: one step of a world each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crdt.facts import CardId, Kind, ReplicaId
from tests.simulation.diary import check_days, day_at, days_until
from tests.simulation.intruders import ROGUE
from tests.simulation.meetings import bring_lost, cut_short, imported

if TYPE_CHECKING:
    from tests.simulation.world import World


def book(world: World) -> None:
    """Somebody pays in, or a clerk corrects a balance; at times the same request again."""
    world.bookings += 1
    number = world.bookings - (world.random.random() < AGAIN and world.bookings > 1)
    card = world.cards[number % (len(world.cards) - 1)]
    kind = Kind.TOPUP if number % 4 else Kind.ADJUSTMENT
    world.note(card.hex(), number)
    with world.risking(world.hub, 2):
        world.hub.book(card, kind, 100 * number, world.now_ms, f"request {number}")


def block(world: World) -> None:
    """Any card is hotlisted, or not any more."""
    _list(world, world.card())


def list_stranger(world: World) -> None:
    """The same with a card that hardly anybody has met."""
    _list(world, world.cards[-1])


def chores(world: World) -> None:
    """Some of the hub's background work."""
    with world.risking(world.hub, 4):
        world.note(world.hub.database.run_background(world.random.choice((1, 4, 16))))


def hub_power_cycle(world: World) -> None:
    """The depot's box is started again."""
    world.hub.start()


def publish(world: World) -> None:
    """Other fares and rules."""
    world.hub.documents.publish_fares()


def backup(world: World) -> None:
    """A copy of the hub's disk."""
    world.backups = [*world.backups[-1:], world.hub.backup()]


def restore_hub(world: World) -> None:
    """One of the copies is put back; at times of the whole machine, with what tells that it was."""
    if world.backups:
        whole = world.random.random() < WHOLE
        at = world.random.randrange(len(world.backups))
        world.hub.restore(world.backups[at], whole=whole)
        if whole:
            world.backups = world.backups[: at + 1]  # what the later ones have numbered it numbers otherwise
        world.note("restored", "with marks" if whole else "")


def adopt(world: World) -> None:
    """An operator takes a terminal for dead, and adopts some of what it wrote; or all there is in quarantine.

    It may only be away, and write all that again when it comes back. At times the hub is put back then, to
    before that or after it, and somebody has what it booked.
    """
    found = world.hub.evidence.undecided(world.hub.revocations.replaced)
    if not found:
        return
    if world.random.random() < 0.5:
        found = world.random.sample(found, world.random.randint(1, len(found)))
    loses = not world.faults.stale and world.random.random() < LOSES
    early = loses and world.random.random() < 0.5
    if early:
        backup(world)
    with world.risking(world.hub, 4):
        world.note(world.hub.adopt(found), "of", len(found), "blocks")
        world.hub.chores()
    if loses and not early:
        backup(world)
    if loses and world.present():
        world.sync(world.random.choice(world.present()))
        world.hub.chores()
        restore_hub(world)


def forget_branch(world: World) -> None:
    """An operator has the hub adopt what a terminal has written beside its chain; then the hub is put back to
    before either, and that branch is the first to come."""
    hub, rogue, present = world.hub, ROGUE.replica, world.present()
    known = world.oracle.hub.reach.get(rogue, 0) == len(world.oracle.facts[rogue])
    if not (present and known) or rogue in hub.cut_offs or hub.unaware or world.faults.stale:
        return
    backup(world)
    hub.adopt([world.intruder.fork()])
    hub.chores()
    world.sync(world.random.choice(present))
    hub.restore(world.backups[-1], whole=False)
    world.intruder.turn()
    world.note("turned")


def find_lost(world: World) -> None:
    """Storage that was taken out turns up, of a terminal that has another identity since.

    Not while a hub that was put back has still to be told who had ended: until then it takes that in.
    """
    for bus in world.buses:
        if bus.storage.lost and not world.hub.documents.lost.cut_offs:
            bring_lost(world.hub, bus)
            world.note(bus.name)


def night(world: World) -> None:
    """The day of service ends, and the first minutes of the next pass."""
    world.pass_time(day_at(world.now_ms).end_ms - world.now_ms + MORNING_MS)


def close_days(world: World) -> None:
    """The days that have ended are closed, as hub.daybook does by itself; what comes later restates them."""
    for day in days_until(world.now_ms)[:-1]:
        with world.risking(world.hub, 4):
            report = world.hub.ledger.close_day(day, world.now_ms).result()
            world.note(len(report.figures), len(report.adjustments))
    check_days(world)


def late(world: World) -> None:
    """A request arrives that its terminal has given up."""
    if world.network.late:
        world.network.deliver_late()
        world.note("delivered")


def import_stick(world: World) -> None:
    """A technician brings a courier file: again, or half of it."""
    if world.sticks:
        file = world.random.choice(world.sticks)
        file = cut_short(file, world.random) if world.random.random() < 0.3 else file
        with world.risking(world.hub, 2):
            world.note(imported(world.hub, file))


def revoke(world: World) -> None:
    """A terminal is stopped. What it wrote counts as far as the hub has it, or not even that."""
    if (len(world.buses) > 2 or world.sharer) and not world.network.revoked:
        bus = world.sharer or world.bus()
        if bus.branch is None:
            world.network.revoked.update(bus.replicas)
            _cut_off(world, bus.replicas)
        world.note(bus.name)


def rogue_sells(world: World) -> None:
    """What it writes while nobody suspects it comes with somebody's sync."""
    if world.present() and ROGUE.replica not in world.hub.cut_offs:
        world.intruder.sell(3)


def revoke_rogue(world: World) -> None:
    """A terminal that others carry blocks of is revoked; or what it wrote since is accepted after all."""
    if ROGUE.replica in world.hub.cut_offs:
        with world.risking(world.hub, 4):
            world.hub.revoke({ROGUE.replica: len(world.oracle.facts[ROGUE.replica])})
    elif ROGUE.replica in world.oracle.hub.reach:
        _cut_off(world, [ROGUE.replica])


def intrude(world: World) -> None:
    """Somebody tries to get into the ledgers what does not belong there."""
    world.note(world.intruder.act())


AGAIN = 0.4
WHOLE = 0.4
LOSES = 0.3
MORNING_MS = 60_000


def _cut_off(world: World, replicas: Sequence[ReplicaId]) -> None:
    reach = world.oracle.hub.reach
    cut_offs = {replica: reach.get(replica, 0) for replica in replicas}
    last = replicas[-1]
    earlier = world.random.randint(0, cut_offs[last])
    if world.random.random() < 0.6 and world.hub.evidence.end(
        last, earlier
    ):  # something is left of the chain
        cut_offs[last] = earlier
    world.note(cut_offs)
    with world.risking(world.hub, 4):
        world.hub.revoke(cut_offs)


def _list(world: World, card: CardId) -> None:
    """Put a card on the hotlist, or take it off."""
    listed = card not in world.oracle.hub.listed
    world.note(card.hex(), listed)
    with world.risking(world.hub, 2):
        world.hub.block(card, listed)
