"""What happens on a bus, or between two: one step of a world each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.decide import Accepted
from tests.simulation.meetings import exported, hear_list, imported, meet
from tests.simulation.oracle import expect

if TYPE_CHECKING:
    from tests.simulation.buses import Bus
    from tests.simulation.world import World


def tap(world: World) -> None:
    """A card is presented."""
    bus, card = world.bus(), world.card()
    with world.risking(bus, 2) as fate:
        verdict = bus.tap(card)
    if fate.cut:
        return
    world.note(bus.name, card.hex(), type(verdict).__name__)
    bus.check([card])
    if isinstance(verdict, Accepted):
        expect(
            bus.ledger.view(card).balance_minor == verdict.balance_after_minor,
            "the driver was told another balance",
        )


def sync(world: World) -> None:
    """A sync run of any bus; the power may fail at either end."""
    world.sync(world.bus(), cuts=True)


def sync_copied(world: World) -> None:
    """Deliver what a copy of the storage does not have, as a rule."""
    copied = [bus for bus in world.present() if bus.storage.copy is not None]
    if copied and world.random.random() < DELIVERED:
        bus = world.random.choice(copied)
        bus.tap(world.cards[0])
        world.sync(bus)


def seal(world: World) -> None:
    """The open taps become a block."""
    bus = world.bus()
    with world.risking(bus, 2):
        bus.ledger.seal()
    world.note(bus.name)
    bus.check(world.cards)


def tidy(world: World) -> None:
    """Some of a terminal's housekeeping."""
    bus = world.bus()
    with world.risking(bus, 6):
        world.note(bus.name, bus.database.run_background(world.random.choice((1, 4, 16))))
    bus.check(world.cards)


def seal_copied(world: World) -> None:
    """A terminal whose storage was copied seals what nobody will have, unless it is brought in time."""
    for bus in world.present():
        if bus.storage.copy is not None and bus.branch is None:
            bus.tap(world.cards[1])
            bus.ledger.seal()
            bus.check(world.cards)
            world.note(bus.name)


def go_apart(world: World) -> None:
    """A terminal with old storage sells, and seals what it sold if it does not know better."""
    for bus in world.buses:
        if bus.branch is not None:
            for card in world.cards[:2]:
                bus.tap(card)
            bus.ledger.seal()
            bus.check(world.cards)
            world.note(bus.name)


def carry_apart(world: World) -> None:
    """A technician brings the hub what a terminal with old storage has sealed, before that knows."""
    for bus in world.present():
        if bus.branch is not None and world.random.random() < CARRIED:
            world.note(bus.name, imported(world.hub, exported(bus)))


def share(world: World) -> None:
    """A door sells, and another carries what it sealed; it will be the one that is revoked, if any is."""
    giver, taker = world.buses[:2]
    if giver.branch is None and taker.branch is None:
        giver.tap(world.cards[0])
        giver.ledger.seal()
        world.note(giver.name, taker.name, meet(giver, taker))
        world.sharer = giver


def ride_out(world: World) -> None:
    """Somebody rides with one card on every bus, for as long as they let it."""
    for bus in world.buses:
        for _ in range(MAX_RIDES):
            bus.wall.pass_time(RIDE_MS)
            if not isinstance(bus.tap(world.cards[0]), Accepted):
                break
        bus.check(world.cards)


def keep_in_touch(world: World) -> None:
    """A bus sells, and what it sold is settled; then it sells and seals some more."""
    bus = world.present()[0]
    if bus.branch is None:
        for synced in (True, False):
            for card in world.cards[:2]:
                bus.wall.pass_time(RIDE_MS)
                bus.tap(card)
                bus.ledger.seal()
            if synced:
                world.sync(bus)


def prune(world: World) -> None:
    """A terminal forgets what has been settled for long. No hub may lose that: older backups go as well."""
    bus = (
        max(world.buses, key=lambda one: len(one.record.blocks()))
        if world.random.random() < 0.7
        else world.bus()
    )
    reach = world.oracle.hub.reach
    if any(seq > reach.get(replica, 0) for replica, seq in bus.beliefs.installed().reach.items()):
        return  # the hub was put back, and retention is longer than anybody takes to hear of that
    before = bus.record.blocks()
    with world.risking(bus, 6):
        bus.prune(*world.random.choice(RETENTIONS))
    gone = before - bus.record.blocks()
    world.note(bus.name, len(gone))
    world.backups = [
        backup
        for backup in world.backups
        if all(last_seq <= backup.snapshot.reach.get(replica, 0) for replica, _, last_seq in gone)
    ]
    bus.check(world.cards)


def power_cycle(world: World) -> None:
    """The driver turns the key."""
    bus = world.bus()
    world.note(bus.name)
    world.restart(bus)


def clock(world: World) -> None:
    """The system clock of a terminal is set, rightly or wrongly."""
    bus = world.bus()
    wall, random = bus.wall, world.random
    match random.randrange(4):
        case 0:
            wall.wall_ms = random.randrange(86_400_000)  # 1970: the Pi has no battery
        case 1:
            wall.wall_ms += random.choice((10_000, 86_400_000, 400 * 86_400_000))
        case 2:
            wall.wall_ms = max(0, wall.wall_ms - random.choice((10_000, 86_400_000)))
        case _:
            wall.wall_ms = wall.synchronised_ms = world.now_ms
    world.note(bus.name, wall.wall_ms)


def partition(world: World) -> None:
    """A bus leaves the network, or comes back."""
    bus = world.bus()
    world.network.partitioned ^= {bus.number}
    world.note(bus.name, bus.number in world.network.partitioned)


def pair_anew(world: World) -> None:
    """A technician pairs a terminal again; one that knows that its storage is old: see `pair_suspended`."""
    bus = world.bus()
    good = not bus.ledger.suspended and bus.replica not in world.network.revoked
    if len(bus.replicas) < 3 and bus.branch is None and good:
        for author in (bus.author, bus.next_author):  # also whom it has paired before
            world.hub.enrol(author)
        bus.pair_anew()
    world.note(bus.name)
    bus.check(world.cards)


def pair_suspended(world: World) -> None:
    """A technician gets to a terminal with old storage before its next sync run; or not."""
    for bus in world.present():
        if bus.ledger.suspended and world.random.random() < PAIRED:
            world.pair_restored(bus)
            world.note(bus.name)
            bus.check(world.cards)


def meeting(world: World) -> None:
    """One door tells another what it has."""
    honest = [bus for bus in world.buses if bus.branch is None]
    if len(honest) < 2:
        return
    giver, taker = world.random.sample(honest, 2)
    with world.risking(taker, 3):
        world.note(giver.name, taker.name, meet(giver, taker))
    taker.check(world.cards)


def fill_stick(world: World) -> None:
    """A technician carries away what a bus holds."""
    bus = world.bus()
    if bus.branch is None:
        world.sticks = [*world.sticks[-2:], exported(bus)]
        world.note(bus.name)


def copy_storage(world: World) -> None:
    """Somebody makes an image of an SD card."""
    bus = world.bus()
    if bus.storage.copy is None or world.random.random() < 0.3:
        bus.storage.make_copy()
    world.note(bus.name)


def copy_unsent(world: World) -> None:
    """Somebody makes an image of an SD card with a block that the hub does not have so far."""
    bus = world.bus()
    bus.tap(world.cards[0])
    bus.ledger.seal()
    bus.storage.make_copy()
    bus.check(world.cards)
    world.note(bus.name)


def restore_storage(world: World) -> None:
    """The image is put in, in a world once without and once with a promise that was not taken up: what only
    that storage had is gone, and the world is told so."""
    copied = [bus for bus in world.present() if bus.storage.copy is not None]
    copied = [bus for bus in copied if _is_promised(bus) not in world.restored]
    if not copied or world.faults.stale:  # an old answer hides what the hub has
        return
    bus = world.random.choice(copied)
    held = world.oracle.hub.reach.get(bus.replica, 0)
    others = [other for other in world.buses if other is not bus]
    if any(other.reach().get(bus.replica, 0) > held for other in others):
        return  # two chains that nobody has judged: whichever comes to the hub first counts
    world.restored.add(_is_promised(bus))
    world.sticks = []
    for other in others:
        other.beliefs.forget(bus.replica)
    world.network.late = [late for late in world.network.late if late[0] != bus.replica]
    world.backups = []  # what only a hub has is lost when that is put back as well
    with_marks = world.random.random() < 0.5
    bus.storage.put_back(held, with_marks=with_marks)
    world.note(bus.name, "with marks" if with_marks else "", bus.branch is not None)
    bus.check(world.cards)


def copy_promised(world: World) -> None:
    """The hub promises a new identity to terminals with old storage, which then go out of reach; and somebody
    makes an image of the SD card. Some hear from a stick that they were replaced."""
    for bus in world.present():
        if bus.ledger.suspended and bus.promised is None and world.random.random() < PAIRED:
            world.promise(bus)
        if bus.promised is not None:
            bus.storage.make_copy()
            if bus.number % 2:
                hear_list(world.hub, bus)
            world.note(bus.name)
            bus.check(world.cards)


def go_on_promised(world: World) -> None:
    """A terminal takes up what it was promised, sells, and brings some of that."""
    for bus in world.present():
        if bus.storage.copy is not None and bus.storage.copy.promised is not None:
            world.sync(bus)
            bus.tap(world.cards[0])
            if world.random.random() < DELIVERED:
                world.sync(bus)
            bus.check(world.cards)
            world.note(bus.name)


def _is_promised(bus: Bus) -> bool:
    return bus.storage.copy is not None and bus.storage.copy.promised is not None


MAX_RIDES = 8
PAIRED = 0.7
DELIVERED = 0.7
CARRIED = 0.6
RIDE_MS = 90_000  # longer than the passback window
RETENTIONS = ((0, 0), (0, 0), (0, 3), (3_600_000, 0))  # ms, and facts that are kept in any case
