"""A terminal answers from memory whose certificates it holds: as the disk has them, whatever was written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from crdt.block import Block
from crdt.certificate import AuthorCertificate, issue
from crdt.errors import ChainBroken, UnknownAuthor
from crdt.facts import Delta, Kind, ReplicaId
from crdt.frontier import Head
from crdt.settlement import CardRow
from crdt.store.blocks import authors_of
from tests.crdt import world
from tests.crdt.store.branches import certificates_read
from tests.crdt.store.fleet import Fleet, OpenTerminal, card
from tests.crdt.store.recoveries import NEW, concede, deliver, tap
from tests.crdt.store.relays import give, page, revoked, ride

STRANGER = world.terminal(9)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and two terminals with high-water marks."""
    fleet = Fleet(tmp_path, 2, marked=True)
    yield fleet
    fleet.close()


def known(terminal: OpenTerminal) -> set[ReplicaId]:
    """Who is known; on the disk and in memory it is the same."""
    on_disk = terminal.database.read_and_wait(authors_of)
    assert terminal.ledger.authors() == on_disk
    return set(on_disk)


def one_block(author: world.Terminal) -> Block:
    """The beginning of somebody's chain."""
    fact = Delta(author.certificate.replica, 1, card(1), Kind.FARE, -250, 1_000)
    return author.blocks([fact], [1])[0]


def concede_to(terminal: OpenTerminal, block: Block, shown: AuthorCertificate = STRANGER.certificate) -> None:
    """The terminal hears that this is the chain that its author has at the hub."""
    terminal.ledger.concede(block.header.replica, [block.raw], [shown])


def test_asking_reads_nothing_however_large_the_fleet(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked at each look at the LAN and in each exchange with a peer."""
    one, other = fleet.terminals
    ride(one, 1)
    give(one, other)
    read = certificates_read(monkeypatch)
    assert set(other.ledger.authors()) == {one.ledger.replica, other.ledger.replica}
    assert other.ledger.authors() is other.ledger.authors()
    assert read == []


def test_what_was_asked_for_does_not_change_in_the_hands_of_who_asked(fleet: Fleet) -> None:
    """Any thread may be going through it while blocks come in."""
    one, other = fleet.terminals
    before = other.ledger.authors()
    ride(one, 1)
    give(one, other)
    assert set(before) == {other.ledger.replica}
    assert known(other) == {one.ledger.replica, other.ledger.replica}


def test_a_merge_makes_its_authors_known_and_a_refused_one_not(fleet: Fleet) -> None:
    one, other = fleet.terminals
    ride(one, 1)
    give(one, other)
    assert known(other) == {one.ledger.replica, other.ledger.replica}
    other.ledger.merge((), [STRANGER.certificate])
    assert known(other) == {one.ledger.replica, other.ledger.replica, STRANGER.certificate.replica}
    of = NEW.certificate
    foreign = issue(world.OTHER_FLEET_KEY, of.terminal, of.name, of.role, NEW.key.public_key, of.limits)
    assert other.ledger.merge((), [foreign]).refused
    assert of.replica not in known(other)


def test_conceding_makes_the_author_known(fleet: Fleet) -> None:
    """A hub shows the chain of an identity of which this storage has never heard."""
    one = fleet.terminals[0]
    for _again in range(2):
        concede_to(one, one_block(STRANGER))
        assert known(one) == {one.ledger.replica, STRANGER.certificate.replica}
        assert one.ledger.frontier().keys() <= one.ledger.authors().keys()


def test_a_concession_that_is_refused_makes_nobody_known(fleet: Fleet) -> None:
    one, stranger = fleet.terminals[0], one_block(STRANGER)
    with pytest.raises(UnknownAuthor):
        concede_to(one, stranger, world.HUB)
    with pytest.raises(ChainBroken):
        one.ledger.concede(stranger.header.replica, [stranger.raw] * 2, [STRANGER.certificate])
    assert known(one) == {one.ledger.replica}


@contextmanager
def failing(terminal: OpenTerminal, table: str) -> Iterator[None]:
    """Whatever writes to this table fails, and is undone with all that it wrote before."""
    fail = f"CREATE TRIGGER fail AFTER INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END"
    terminal.database.write_and_wait(lambda connection: connection.execute(text(fail)))
    yield
    terminal.database.write_and_wait(lambda connection: connection.execute(text("DROP TRIGGER fail")))


@pytest.mark.parametrize("way", ["merge", "concede", "meet"])
def test_a_write_that_fails_makes_nobody_known(fleet: Fleet, way: str) -> None:
    """Its certificate was stored, and is gone with the transaction; the next time it stays."""
    one, block = fleet.terminals[0], one_block(STRANGER)

    def write() -> None:
        if way == "merge":
            one.ledger.merge([block.raw], [STRANGER.certificate])
        elif way == "concede":
            concede_to(one, block)
        else:
            one.ledger.keepsake.meet([world.HUB])

    with failing(one, "author" if way == "meet" else "block"), pytest.raises(IntegrityError):
        write()
    assert known(one) == {one.ledger.replica}
    write()
    assert len(known(one)) == 2


def test_what_a_hub_says_besides_changes_nobody(fleet: Fleet) -> None:
    """A settlement and a list of revocations name authors that nobody here has met."""
    one, other = fleet.terminals
    ride(one, 1)
    give(one, other)
    everybody = known(other)
    other.ledger.install(
        page({STRANGER.certificate.replica: Head(3, b"h" * 32)}, [CardRow(card(1), 0, 0)], 1)
    )
    other.ledger.put_document(revoked(1, {one.ledger.replica: 0, STRANGER.certificate.replica: 0}))
    assert known(other) == everybody
    other.ledger.keepsake.meet([world.HUB])
    assert known(other) == {*everybody, world.HUB.replica}


def test_everybody_is_known_after_a_restart_and_under_another_identity(fleet: Fleet, tmp_path: Path) -> None:
    """Also where an old image was put back, which has never heard of what the terminal has met since."""
    one, other = fleet.terminals
    old = one.ledger.replica
    image = one.image(tmp_path / "image")
    tap(one, 1)
    deliver(fleet, one)
    ride(other, 1)
    give(other, one)
    one.reopen()
    assert known(one) == {old, other.ledger.replica}
    one.restore(image)
    assert known(one) == {old}
    concede(fleet, one, old)
    retired = one.ledger
    one.become(NEW)
    give(other, one)
    assert known(one) == {old, other.ledger.replica, NEW.certificate.replica}
    assert set(retired.authors()) == {old}, "it was told nothing any more, and has ended"
    one.reopen()
    assert known(one) == {old, other.ledger.replica, NEW.certificate.replica}
