"""More authors than one message has room for: settlements bring their heads in pages (invariants 2, 4, 6)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.facts import Draft, Kind, ReplicaId
from crdt.frontier import MAX_FRONTIER, Head
from crdt.store import installer
from crdt.store.blocks import put_heads
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.test_hub import fares
from tests.crdt.store.test_install import check, tidied
from tests.crdt.store.test_revoking import put as put_list

AUTHORS = 40_000  # 10,000 terminals, each paired four times


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and a terminal."""
    fleet = Fleet(tmp_path, 1)
    yield fleet
    fleet.close()


def write_heads(fleet: Fleet, count: int, seq: int) -> None:
    """As if so many others had written: their heads in the hub's record, all moved by its last change."""
    position = fleet.hub.totals().result().position
    heads = [(_author(number), Head(seq, number.to_bytes(32, "big")), 0) for number in range(1, count + 1)]
    fleet.hub_database.write_and_wait(lambda connection: put_heads(connection, heads, position))


def _author(number: int) -> ReplicaId:
    return ReplicaId(number.to_bytes(16, "big"))


def test_a_fleet_of_more_authors_than_one_message_names_is_loaded_and_kept_up_to_date(fleet: Fleet) -> None:
    """A full load, an increment in which few heads moved, and one in which all did; taps in between."""
    one = fleet.terminals[0]
    fleet.book(card(1), Draft(Kind.TOPUP, 1_000))
    write_heads(fleet, AUTHORS, 1)
    pages = 0
    while not fleet.pull_one(one):
        one.tap(card(1))
        check(fleet, one)
        pages += 1
    assert pages >= AUTHORS // MAX_FRONTIER
    assert len(one.ledger.settled_frontier()) == AUTHORS + 1
    fleet.heal()
    assert one.ledger.digest() == fleet.hub.digest().result()
    for moved in (200, AUTHORS):
        fleet.book(card(2), Draft(Kind.TOPUP, 1_000))
        write_heads(fleet, moved, 1 + moved)
        fleet.pull(one)
        check(fleet, one)
        assert one.ledger.digest() == fleet.hub.digest().result()
    one.reopen()
    tidied(one)
    assert one.ledger.digest() == fleet.hub.digest().result()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if few heads were many."""
    monkeypatch.setattr(installer, "SMALL_ROWS", 1)
    monkeypatch.setattr(installer, "CHUNK_ROWS", 2)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("restart", [False, True])
def test_a_head_that_moves_or_goes_while_one_is_paging_comes_again(fleet: Fleet, restart: bool) -> None:
    """One was given before it moved, one before nothing was left of it: neither is installed as it was."""
    one = fleet.terminals[0]
    gone: dict[ReplicaId, int] = {}
    for full_load in (True, False):
        authors = [world.terminal(20 + number + 10 * full_load) for number in range(4)]
        for number, author in enumerate(authors):
            blocks = author.blocks(fares(author, [number] * 3), [1, 2])
            fleet.hub.merge([block.raw for block in blocks[:1]], [author.certificate]).result()
        staged: dict[ReplicaId, Head] = {}
        while len(staged) < 3:
            page = fleet.next_page(one, 1)
            assert not fleet.install(one, page)
            staged |= page.heads
            if restart:
                one.reopen()
        moves, goes = authors[0], authors[1]
        assert {moves.key.replica, goes.key.replica} <= staged.keys()
        block = moves.blocks(fares(moves, [0] * 3), [1, 2])[1]
        assert not fleet.hub.merge([block.raw], []).result().refused
        gone[goes.key.replica] = 0
        assert put_list(fleet.hub, len(gone), gone)
        fleet.pull(one, 1)
        tidied(one)
        settled = one.ledger.settled_frontier()
        assert settled[moves.key.replica] == block.head
        assert goes.key.replica not in settled
        assert one.ledger.digest() == fleet.hub.digest().result()
