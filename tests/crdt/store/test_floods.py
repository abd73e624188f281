"""Invariant 8: whoever has a terminal's key may sign any number of facts of one card and moment.

A reader takes no two of a card in a millisecond, so what is written again is looked for by that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from crdt.block import Block, parse
from crdt.facts import Context, Delta, Kind
from crdt.store import projection
from crdt.store.adopting import Adopter
from crdt.store.blocks import authors_of, fact_row, store_blocks
from crdt.store.connection import driver_connection
from crdt.store.content import Content
from crdt.store.database import Database
from crdt.store.hub_schema import HUB_METADATA
from crdt.store.kin import Kin
from crdt.store.moments import Moment
from crdt.store.reckoning import Held
from crdt.store.rewriting import Copied, copied_rides, held
from crdt.store.rounds import FACTS_AT_ONCE
from tests.crdt import world
from tests.crdt.store.branches import OTHER, as_of, caught_up, give, renewed, steps
from tests.crdt.store.fleet import KEY, Fleet, card
from tests.crdt.store.quarantined import at_rest

EARLIER: Final = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
KIN: Final = Kin({one.replica: one for one in (*world.CERTIFICATES, EARLIER.certificate)})
MOMENT: Final = Moment(card(1), 1_000)
MANY: Final = 600
FEW: Final = 150
COPIES: Final = 3


def ride(seq: int, amount_minor: int = -1, route: str = "12", kind: Kind = Kind.FARE) -> Delta:
    """Of the one card and moment."""
    context = Context(route, "", "town")
    return Delta(OTHER.key.replica, seq, MOMENT.card, kind, amount_minor, MOMENT.at_ms, context)


def flood(count: int) -> list[Delta]:
    """So many facts: a third of them the same, the others each another one, by its money or by its place."""
    return [
        ride(seq, *[(-1, "12"), (-1 - seq, "12"), (-1, f"line {seq}")][seq % 3])
        for seq in range(1, count + 1)
    ]


def counted(path: Path, count: int) -> tuple[list[Copied], Held, int]:
    """What is found of the moment where so much is of it, and how many rows the database gives for that."""
    given: list[None] = []
    written = [*flood(count), *as_of([ride(1)] * COPIES, EARLIER)]
    with Database.open(path, KEY) as database:
        database.create(HUB_METADATA)
        rows = [(delta.replica, delta.seq, *fact_row(delta)) for delta in written]
        database.write_and_wait(lambda connection: projection._INSERT.run(connection, rows))

        def work(connection: Connection) -> tuple[list[Copied], Held]:
            def row_of(_cursor: Any, row: tuple[Any, ...]) -> tuple[Any, ...]:
                given.append(None)
                return row

            driver: Any = driver_connection(connection)
            driver.row_factory = row_of
            rides = list(copied_rides(connection, KIN, [MOMENT]))
            found = held(connection, KIN, [ride(1)])
            driver.row_factory = None
            return rides, found

        return *database.write_and_wait(work), len(given)


def test_of_a_moment_of_many_facts_the_ledger_reads_how_often_there_is_what_it_asks_for(
    tmp_path: Path,
) -> None:
    """It read each of them, again with every part of them that came."""
    few, many = counted(tmp_path / "few", 6), counted(tmp_path / "many", MANY)
    assert few[2] == many[2] < 10
    for (found,), by_content, _ in (few, many):
        assert found.counts.copies(Content.of(ride(1))) == found.most == COPIES
        assert by_content.copies(Content.of(ride(1))) == COPIES
    assert [found.counts.theirs[Content.of(found.ride)] for (found,), _, _ in (few, many)] == [2, 200]
    assert [by_content.theirs[Content.of(ride(1))] for _, by_content, _ in (few, many)] == [2, 200]


def test_what_differs_in_anything_is_another_fact_on_every_database(fleet: Fleet) -> None:
    """A copy goes back for the same ride alone: not for one of another place, nor for what reads alike."""
    alike = [ride(1, route="12 "), ride(2, amount_minor=-2), ride(3, route="")]
    copies = [ride(1), ride(2, amount_minor=0), ride(3, route="linie a")]
    theirs = [
        *alike,
        ride(4, route="Linie A"),
        ride(5, amount_minor=0),
        ride(6, kind=Kind.TOPUP, amount_minor=1),
    ]
    own = EARLIER.blocks(as_of(copies, EARLIER), [])
    fleet.hub.merge([block.raw for block in own], [EARLIER.certificate]).result()
    fleet.hub.merge([block.raw for block in OTHER.blocks(theirs, [])], []).result()
    at_rest(fleet.hub)
    caught_up(fleet.hub)
    written = fleet.hub.history(MOMENT.card, 100).result()
    back = [fact for fact in written if fact.replica == fleet.hub.replica]
    assert [Content.of(fact) for fact in back] == [Content.of(copies[1]).back]
    assert {fact.kind for fact in back} == {Kind.REVERSAL}


def test_what_differs_in_anything_is_another_ride_on_every_database(fleet: Fleet) -> None:
    """Of two authors' rides of one card and moment only those that are alike in all count once."""
    one = [ride(1), ride(2, route="linie a"), ride(3, amount_minor=0), ride(4, amount_minor=0, route="")]
    other = [
        ride(1, route="12 "),
        ride(2, route="Linie A"),
        ride(3, amount_minor=-2),
        ride(4),
        ride(5, 0, ""),
    ]
    copy = renewed(OTHER)
    for author, rides in ((OTHER, one), (copy, other)):
        raws = [block.raw for block in author.blocks(as_of(rides, author), [])]
        fleet.hub.merge(raws, [author.certificate]).result()
    at_rest(fleet.hub)
    caught_up(fleet.hub)
    written = fleet.hub.history(MOMENT.card, 100).result()
    own = [fact for fact in written if fact.replica == fleet.hub.replica]
    assert {fact.kind for fact in own} == {Kind.DUPLICATE}
    assert sorted(fact.amount_minor for fact in own) == [0, 1]
    assert {fact.context for fact in own} == {ride(1).context, ride(1, route="").context}


def test_of_rides_that_two_authors_sign_any_number_of_the_hub_writes_some_at_a_time(fleet: Fleet) -> None:
    """And has written all in the end: each counts once."""
    times = FACTS_AT_ONCE + MANY
    rides = [ride(seq, route=f"line {seq}") for seq in range(1, times + 1)]
    give_each(fleet, rides, rides)
    assert fleet.hub.balance(MOMENT.card).result() == -times
    assert fleet.hub.books().result().balance


def test_what_an_author_says_any_number_of_times_is_one_word(fleet: Fleet) -> None:
    """No reader does: the hub writes one fact for it, and not as many as a thief makes up for nothing."""
    give_each(fleet, [ride(1)] * MANY, [ride(1)] * MANY)
    written = fleet.hub.blocks_after(fleet.hub.replica, 0, 1 << 20).result()
    assert [parse(raw).header.count for raw in written] == [1]
    assert fleet.hub.balance(MOMENT.card).result() == 1 - 2 * MANY


@pytest.mark.parametrize("server", ["file"], indirect=True)
def test_steps_are_few_however_many_rides_of_one_moment_two_authors_sign(fleet: Fleet) -> None:
    """Each step counts all of them: as many in each step would take the square of their number."""
    many, copy = 12 * FACTS_AT_ONCE, renewed(OTHER)
    rides = [ride(seq, route=f"line {seq}") for seq in range(1, many + 1)]
    fleet.hub.merge([], [copy.certificate]).result()

    def said(connection: Connection) -> None:  # the hub itself hears nothing of it
        for author in (OTHER, copy):
            blocks = author.blocks(as_of(rides, author), [FACTS_AT_ONCE] * (many // FACTS_AT_ONCE))
            store_blocks(connection, blocks)
        while projection.project_some(connection, 1).cards:
            pass

    fleet.hub_database.write_and_wait(said)
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    taken = [step.facts for step in steps(fleet, adopter) if step.facts]  # others bring the history on
    assert taken == [times * FACTS_AT_ONCE for times in (1, 2, 4, 4, 1)]


def give_each(fleet: Fleet, *said: list[Delta]) -> None:
    """Two authors say these, and the hub comes to rest."""
    for author, rides in zip((OTHER, renewed(OTHER)), said, strict=True):
        blocks = author.blocks(as_of(rides, author), [250] * (len(rides) // 250))
        fleet.hub.merge([block.raw for block in blocks], [author.certificate]).result()
    at_rest(fleet.hub)


@pytest.mark.parametrize("server", ["file"], indirect=True)
def test_the_opening_that_remains_is_found_however_often_a_card_rode(fleet: Fleet) -> None:
    """A step that takes a thief's openings back reads the others of these cards, and not their rides."""
    opened = [ride(1, 300, kind=Kind.OPENING), ride(2, 900, kind=Kind.OPENING)]
    rides = [replace(ride(seq), at_ms=MOMENT.at_ms + seq) for seq in range(1, MANY)]
    blocks = OTHER.blocks(as_of([*opened, *rides], OTHER), [2, 10])
    give(fleet.hub, *blocks[:2])
    caught_up(fleet.hub)
    few = openings_effort(fleet)
    give(fleet.hub, *blocks[2:])
    caught_up(fleet.hub)
    assert openings_effort(fleet) < 1.1 * few


@pytest.mark.parametrize("server", ["file"], indirect=True)
def test_a_step_of_the_history_takes_as_long_as_it_has_facts_also_of_one_moment(fleet: Fleet) -> None:
    """Whether others write of a moment is looked up once for it, and not for each of its facts."""
    rides = [replace(ride(1), card=card(2))] * FEW + [replace(ride(1), card=card(3))] * MANY
    few, many = OTHER.blocks(as_of(rides, OTHER), [FEW])
    assert step_effort(fleet, many) * FEW < step_effort(fleet, few) * MANY * 1.1


def step_effort(fleet: Fleet, block: Block) -> int:
    """How many instructions of SQLite's machine it takes to put it into the history, as a step."""

    def work(connection: Connection) -> int:
        store_blocks(connection, [block])
        with instructions(connection) as taken:
            assert projection.project_some(connection, 1).cards
        return len(taken)

    return fleet.hub_database.write_and_wait(work)


def openings_effort(fleet: Fleet) -> int:
    """How many instructions of SQLite's machine it takes to find the card's largest."""

    def work(connection: Connection) -> int:
        with instructions(connection) as taken:
            assert projection.remaining_openings(connection, [MOMENT.card]) == {MOMENT.card: 900}
        return len(taken)

    return fleet.hub_database.read_and_wait(work)


@contextmanager
def instructions(connection: Connection) -> Iterator[list[None]]:
    """As many as SQLite's machine takes meanwhile."""
    taken: list[None] = []
    driver: Any = driver_connection(connection)
    driver.set_progress_handler(lambda: taken.append(None), 1)
    yield taken
    driver.set_progress_handler(None, 1)
