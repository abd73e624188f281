"""What happens to copies, at random."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from tests.simulation.copies.body import Body
from tests.simulation.copies.world import World

MOST_COPIES: Final = 3

Step = Callable[[World], None]


def draw(random: Random) -> Step:
    """Any step."""
    return random.choices(STEPS, _WEIGHTS)[0]


def tap(world: World) -> None:
    """Somebody rides."""
    body = _any(world)
    world.tap(body)
    world.note(body.name, world.now_ms % 1_000_000)


def seal(world: World) -> None:
    """A block is full, or old enough."""
    body = _any(world)
    body.ledger.seal()
    world.note(body.name)


def sync(world: World) -> None:
    """One run, in which anything may go wrong."""
    world.faults = world.random.choice((0.0, 0.0, 0.15, 0.3))
    world.sync(_any(world), retry=world.random.random() < 0.7)
    world.faults = 0.0


def sync_and_leave(world: World) -> None:
    """The hub promises a new identity, and then is out of reach."""
    world.sync(_copy(world), leaves=True)


def meet(world: World) -> None:
    """Two terminals meet."""
    a, b = world.random.sample(world.bodies, 2)
    world.meet(a, b, tell=world.random.random() < 0.3)


def copy(world: World) -> None:
    """One more lives."""
    if len(world.copies) < MOST_COPIES:
        world.copy(_copy(world), with_marks=world.random.random() < 0.7)


def keep(world: World) -> None:
    """Somebody makes a copy and puts it in a drawer."""
    body = _copy(world)
    world.kept = body.copy(with_marks=world.random.random() < 0.5)
    world.note(body.name)


def put_back(world: World) -> None:
    """That copy, or one of another body, is put into a body."""
    body = _copy(world)
    if world.kept is not None and world.random.random() < 0.6:
        body.put_back(world.kept)
        world.note(body.name)
        return
    other = _copy(world)
    if other is not body:
        body.put_back(other.copy(with_marks=world.random.random() < 0.6))
        world.note(body.name, "<-", other.name)


def restart(world: World) -> None:
    """The program starts anew."""
    body = _any(world)
    body.start()
    world.note(body.name)


def suspend(world: World) -> None:
    """Somebody said that there is another copy."""
    body = _copy(world)
    body.ledger.suspend()
    world.note(body.name)


def pair(world: World) -> None:
    """A technician pairs a copy anew; the hub may be out of reach before that is at its end."""
    world.faults = world.random.choice((0.0, 0.3))
    world.pair(_copy(world), leaves=world.random.random() < 0.3)
    world.faults = 0.0


def pair_under_another_name(world: World) -> None:
    """As the hub advises where it finds out that there are two."""
    world.pair(_copy(world), f"bus {20 + world.random.randrange(2)}")


def arrive_late(world: World) -> None:
    """A request comes to the hub after all."""
    if world.late:
        world.arrive_late(world.random.randrange(len(world.late)))


def restart_hub(world: World) -> None:
    """The hub starts anew."""
    world.hub.start()


def back_up(world: World) -> None:
    """The hub is copied."""
    world.backups = [*world.backups[-1:], world.hub.backup()]


def put_hub_back(world: World) -> None:
    """To one of the copies, now and then with its marks."""
    if world.backups and not world.careful:
        whole = world.random.random() < 0.2
        world.put_hub_back(world.random.randrange(len(world.backups)), whole=whole)
        world.note("whole" if whole else "")


def adopt(world: World) -> None:
    """An operator waits for some of what is in quarantine no longer."""
    found = world.hub.undecided()
    if found:
        world.adopt(world.random.sample(found, world.random.randint(1, len(found))))


def _copy(world: World) -> Body:
    return world.random.choice(world.copies)


def _any(world: World) -> Body:
    return world.random.choice(world.copies if world.random.random() < 0.8 else world.others)


_HOW_OFTEN: Final[dict[Step, float]] = {
    tap: 16,
    seal: 5,
    sync: 12,
    sync_and_leave: 4,
    meet: 6,
    copy: 5,
    keep: 1,
    put_back: 1.5,
    restart: 2,
    suspend: 1.5,
    pair: 3,
    pair_under_another_name: 1.5,
    arrive_late: 1,
    restart_hub: 0.5,
    back_up: 2,
    put_hub_back: 2,
    adopt: 1.5,
}
STEPS: Final = list(_HOW_OFTEN)
_WEIGHTS: Final = list(_HOW_OFTEN.values())
