"""What one transaction of adopting or comparing takes is bounded: every other write of the hub waits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from crdt.block import Block
from crdt.documents import SignedDocument
from crdt.facts import Delta, Kind
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store import projection
from crdt.store.adopting import Adopter, Adoption
from crdt.store.blocks import authors_of, fact_row
from crdt.store.connection import driver_connection
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.store.hub_schema import HUB_METADATA
from crdt.store.kin import Kin
from crdt.store.projection import CATCH_UP_STEPS, STEP_BLOCKS
from crdt.store.rewriting import held
from crdt.store.rounds import BLOCKS_AT_ONCE, FACTS_AT_ONCE
from tests.crdt import world
from tests.crdt.store.behind import forget_history
from tests.crdt.store.branches import (
    COMMON,
    ONE,
    OTHER,
    as_of,
    caught_up,
    certificates_read,
    facts,
    give,
    renewed,
    steps,
)
from tests.crdt.store.fleet import KEY, Fleet, card, deltas_of
from tests.crdt.store.quarantined import at_rest

CARDS = 20
RIDE_MS = 60_000


def history(rides: int) -> list[Delta]:
    """So many rides of each card, one after the other."""
    times = [(number, ride * RIDE_MS + number) for ride in range(rides) for number in range(CARDS)]
    return [
        Delta(OTHER.key.replica, seq, card(number), Kind.FARE, -1, at_ms)
        for seq, (number, at_ms) in enumerate(times, 1)
    ]


def effort(path: Path, rides: int) -> int:
    """How many instructions of SQLite's machine it takes to find what a block of these cards says."""
    known = history(rides)
    sought = [known[ride * CARDS + ride] for ride in range(CARDS)]
    taken: list[None] = []
    with Database.open(path, KEY) as database:
        database.create(HUB_METADATA)
        rows = [(delta.replica, delta.seq, *fact_row(delta)) for delta in known]
        database.write_and_wait(lambda connection: projection._INSERT.run(connection, rows))

        def work(connection: Connection) -> None:
            kin = Kin({one.replica: one for one in world.CERTIFICATES})
            driver: Any = driver_connection(connection)
            driver.set_progress_handler(lambda: taken.append(None), 1)
            found = held(connection, kin, sought)
            driver.set_progress_handler(None, 1)
            assert found.theirs.total() == CARDS

        database.write_and_wait(work)
    return len(taken)


def test_what_a_block_says_is_found_at_once_however_long_the_histories_of_its_cards_are(
    tmp_path: Path,
) -> None:
    """A block of 250 cards with some years of rides each stopped the hub for seconds."""
    assert effort(tmp_path / "long", 20 * CARDS) < 1.1 * effort(tmp_path / "short", CARDS)


def late(hub: HubLedger, sizes: list[int]) -> list[Block]:
    """Blocks of so many fares that come of an identity after it was replaced."""
    body = Revocations().with_replaced({ONE.key.replica: 0}).encode()
    hub.put_document(SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)).result()
    blocks = ONE.blocks(facts(*[(1, Kind.FARE, -1)] * sum(sizes)), sizes)
    give(hub, *blocks)
    return blocks


def test_of_large_blocks_a_step_looks_at_fewer(fleet: Fleet) -> None:
    """It is their facts that take the time."""
    size = FACTS_AT_ONCE // 2 + 1
    blocks = late(fleet.hub, [size, size, size])
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    assert fleet.hub.adopt([block.hash for block in blocks]).result() == 3 * size
    adopter.look([ONE.key.replica])
    assert len(steps(fleet, adopter)) == 3
    adopter.look([], [block.hash for block in blocks])
    assert len(steps(fleet, adopter)) == 3
    assert fleet.hub.balance(card(1)).result() == -3 * size


def test_adopting_many_blocks_goes_on_in_transactions_of_some(fleet: Fleet) -> None:
    """And books each of them, once."""
    count = 2 * BLOCKS_AT_ONCE + 1
    hashes = [block.hash for block in late(fleet.hub, [1] * count)]
    heard: list[int] = []
    fleet.hub.on_commit(lambda change: heard.append(len(change.suspects)))
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    first = fleet.hub_database.write_and_wait(lambda connection: adopter.adopt(connection, hashes, 9))
    assert (first.facts, list(first.left.blocks)) == (BLOCKS_AT_ONCE, hashes[BLOCKS_AT_ONCE:])
    assert fleet.hub.adopt(hashes).result() == count - BLOCKS_AT_ONCE
    assert fleet.hub.adopt(hashes).result() == 0
    assert fleet.hub.balance(card(1)).result() == -count


def test_while_the_history_is_made_anew_a_step_brings_it_nearer_and_no_more(fleet: Fleet) -> None:
    """What the history does not have yet would count as lost."""
    hub, now, at_once = fleet.hub, renewed(ONE), CATCH_UP_STEPS * STEP_BLOCKS
    (lost,) = late(hub, [1])
    assert hub.adopt([lost.hash]).result() == 1
    again = as_of([*deltas_of(lost), *facts(*[(2, Kind.FARE, -1)] * 2 * at_once)], now)
    hub.merge([block.raw for block in now.blocks(again, [1] * 3 * at_once)], [now.certificate]).result()
    at_rest(hub)
    caught_up(hub)
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    adopter.look([], [lost.hash])

    def work(connection: Connection) -> tuple[Adoption, int]:
        """At once, for where processes share a database one brings a history nearer that stands still."""
        forget_history(connection)
        before = projection.lag(connection)
        return adopter.compare(connection, 9), before - projection.lag(connection)

    step, nearer = fleet.hub_database.write_and_wait(work)
    adopter.settle(step)
    assert nearer == at_once
    assert (step.facts, step.more) == (0, True)
    assert sum(one.facts for one in steps(fleet, adopter)) == 0
    assert hub.balance(card(1)).result() == -1


def test_an_adoption_waits_for_a_history_that_is_far_behind(fleet: Fleet) -> None:
    """It would book what is here already."""
    hub, now = fleet.hub, renewed(ONE)
    (lost,) = late(hub, [2])
    again = as_of([*deltas_of(lost)[:1], *facts(*[(2, Kind.FARE, -1)] * 60)], now)
    hub.merge([block.raw for block in now.blocks(again, [1] * 61)], [now.certificate]).result()
    fleet.hub_database.write_and_wait(forget_history)
    assert hub.adopt([lost.hash]).result() == 1
    assert hub.balance(card(1)).result() == -2


def test_a_merge_reads_no_certificates_of_those_whose_facts_are_awaited(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each merge asks whether it brought what was adopted, of however many terminals."""
    hub = fleet.hub
    hub.adopt([block.hash for block in late(hub, [1])]).result()
    at_rest(hub)
    ride = replace(COMMON[1], replica=OTHER.key.replica, seq=1, card=card(5))
    block = OTHER.blocks([ride], [])[0]
    read = certificates_read(monkeypatch)
    assert hub.merge([block.raw]).result().added
    assert read == []


def test_others_write_while_many_blocks_are_adopted(fleet: Fleet) -> None:
    """A whole share of the quarantine, adopted in short transactions, keeps no bus from its hub meanwhile."""
    hashes = [block.hash for block in late(fleet.hub, [1] * 100)]
    at_rest(fleet.hub)
    caught_up(fleet.hub)
    adopting = fleet.hub.adopt(hashes)
    ride = Delta(OTHER.key.replica, 1, card(2), Kind.FARE, -250, 1_000)
    merging = fleet.hub.merge([block.raw for block in OTHER.blocks([ride], [1])])
    ended: list[bool] = []
    merging.add_done_callback(lambda _merged: ended.append(adopting.done()))
    assert merging.result().added
    adopting.result()
    assert ended == [False]
