"""How much the hub takes in of what terminals bring (invariant 8: bounded work and growth)."""

import asyncio
from typing import NoReturn

import pytest

from crdt.block import Block, parse, seal
from crdt.certificate import AuthorCertificate
from crdt.errors import RefusalCode
from crdt.facts import CardId, Delta, Kind, ReplicaId
from crdt.frames import MAX_EXCHANGE_DELTAS, Ack, BlockFrame, CertificateFrame, Refusal
from crdt.frontier import GENESIS
from hub import door as door_module
from hub.door import AUTHOR_DELTAS_A_DAY, DAY_MS, MAX_AUTHOR_DELTAS, Door
from tests.crdt import world
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, Terminal, first

ONE, OTHER, _ = world.TERMINALS
FULL = 4096


class Clock:
    """The hub's clock."""

    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Door:
    """Of a hub that knows two terminals."""
    authors = {one.key.replica: one.certificate for one in (ONE, OTHER)}
    return Door(lambda: authors, clock)


def blocks(author: world.Terminal, count: int, size: int = FULL) -> list[Block]:
    made: list[Block] = []
    for number in range(count):
        deltas = [
            Delta(author.key.replica, seq, CARD, Kind.FARE, 0, 5)
            for seq in range(number * size + 1, (number + 1) * size + 1)
        ]
        made.append(seal(author.key, world.FLEET, deltas, made[-1].hash if made else GENESIS))
    return made


def raws(made: list[Block]) -> list[bytes]:
    return [block.raw for block in made]


def test_an_exchange_brings_so_many_entries_and_the_rest_comes_again(door: Door) -> None:
    made = blocks(ONE, 18)
    let = door.let(raws(made), [])
    assert list(let.blocks) == raws(made[: MAX_EXCHANGE_DELTAS // FULL])
    assert (let.left, let.slowed) == (18 - MAX_EXCHANGE_DELTAS // FULL, False)
    assert list(door.let(raws(made[16:]), []).blocks) == raws(made[16:])


def test_an_exchange_costs_no_more_in_a_large_fleet(clock: Clock) -> None:
    """Whoever comes is looked up; the fleet is not gone through for it."""

    class LookedUp(dict[ReplicaId, AuthorCertificate]):
        def __iter__(self) -> NoReturn:
            raise AssertionError("the whole fleet was gone through")

        items = keys = values = __iter__

    fleet = LookedUp()
    fleet.update([(ONE.key.replica, ONE.certificate), (OTHER.key.replica, OTHER.certificate)])
    door = Door(lambda: fleet, clock)
    given = blocks(ONE, 2)
    assert door.took(given) == []
    assert door.let([block.raw for block in given], []).left == 0


def test_what_is_no_block_is_left_to_the_merge_to_refuse(door: Door) -> None:
    assert list(door.let([b"", b"x" * 40], [b"short"]).blocks) == [b"", b"x" * 40]


def test_a_month_of_a_bus_at_once_and_every_day_after_it_is_taken(door: Door, clock: Clock) -> None:
    """A limit that honest terminals never meet."""
    assert door.took(blocks(ONE, 150, 250)) == []
    for _ in range(5):
        clock.now_ms += DAY_MS
        assert door.let(raws(blocks(ONE, 5, 250)), []).left == 0
        assert door.took(blocks(ONE, 5, 250)) == []


def test_an_author_that_writes_more_than_a_bus_can_is_slowed_and_told_of_once(
    door: Door, clock: Clock
) -> None:
    """Whoever brings it, under whichever identity; nobody else waits for it, and it goes on later."""
    made = blocks(ONE, MAX_AUTHOR_DELTAS // FULL + 1)
    assert door.took(made[:-1]) == []
    (told,) = door.took(made[-1:])
    assert told.header.replica == ONE.key.replica
    both = [*raws(made[:2]), *raws(blocks(OTHER, 2))]
    let = door.let(both, [])
    assert list(let.blocks) == both[2:]
    assert (let.left, let.slowed) == (2, True)
    clock.now_ms -= DAY_MS  # a clock that was put back gives nothing
    assert door.let(both, []).left == 2
    clock.now_ms += 2 * DAY_MS
    assert (MAX_AUTHOR_DELTAS // FULL + 1) * FULL - MAX_AUTHOR_DELTAS < AUTHOR_DELTAS_A_DAY
    assert door.let(both, []).left == 0


async def brought(terminal: Terminal, by: Terminal) -> tuple[int, list[RefusalCode]]:
    """The terminal's whole chain in one exchange: how far it is acknowledged, and what is refused."""
    frames = [BlockFrame(raw) for raw in terminal.chain]
    events = await by.exchange(CertificateFrame(terminal.certificate.encode()), *frames)
    ack = next((event for event in events if isinstance(event, Ack)), None)
    head = None if ack is None else ack.frontier.get(terminal.key.replica)
    return 0 if head is None else head.seq, [event.code for event in events if isinstance(event, Refusal)]


def cards(number: int) -> list[CardId]:
    return [CardId(each.to_bytes(7, "big")) for each in range(number * FULL, (number + 1) * FULL)]


async def test_a_small_exchange_of_very_many_cards_is_taken_in_parts(depot: Depot) -> None:
    """Invariant 8: sequential card ids compress to nothing, and each is a row at the hub."""
    terminal = await depot.pair()
    for number in range(17):
        terminal.taps_on(cards(number), -250)
    most = MAX_EXCHANGE_DELTAS // FULL * FULL
    assert await brought(terminal, terminal) == (most, [RefusalCode.COME_AGAIN])
    assert await brought(terminal, terminal) == (most, [RefusalCode.COME_AGAIN])  # the same again is no new
    await terminal.push(*terminal.chain[16:])
    heads = await asyncio.wrap_future(depot.hub.ledger.heads())
    assert heads[terminal.key.replica] == terminal.head


async def test_a_terminal_that_makes_up_entries_is_slowed_and_the_operator_told(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 8: one hostile terminal grows the ledger by what is taken a day, and blocks nobody else."""
    monkeypatch.setattr(door_module, "MAX_AUTHOR_DELTAS", 5)
    hostile, honest = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await hostile.push(hostile.taps(*[-1] * 6))
    hostile.taps(-1)
    assert await brought(hostile, honest) == (0, [RefusalCode.COME_AGAIN])
    events = await honest.push(honest.taps(-250))
    assert first(events, "Ack").frontier[honest.key.replica] == honest.head
    (flag,) = await asyncio.wrap_future(depot.hub.ledger.flags())
    assert (flag.replica, flag.code) == (hostile.key.replica, RefusalCode.COME_AGAIN)
    assert "Look at the terminal" in flag.sentence
    assert parse(hostile.chain[0]).last_seq == 6
