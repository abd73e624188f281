"""A terminal's ledger on its own: durable taps, exact views, sealed blocks, nothing lost over a restart."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from crdt.block import NOMINAL_BLOCK_DELTAS, parse, verify
from crdt.certificate import Limits, Role, issue
from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.errors import ForeignFleet, MisuseError, NotPermitted
from crdt.facts import CardId, CardView, Context, Draft, Kind
from crdt.frontier import GENESIS, Head
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.terminal import TerminalLedger
from crdt.store.terminal_schema import OPEN_DELTA
from tests.crdt import world
from tests.crdt.store.fleet import KEY, OpenTerminal, added_up, card, deltas_of

FARE = Draft(Kind.FARE, -250)
PATIENCE_S = 30


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[OpenTerminal]:
    """A new terminal."""
    terminal = OpenTerminal(world.TERMINALS[0], tmp_path / "terminal.db")
    yield terminal
    terminal.close()


def copied(terminal: OpenTerminal, to: Path) -> OpenTerminal:
    """The terminal as it would start from the files as they are now, without having been closed."""
    to.mkdir()
    for file in terminal.path.parent.glob(terminal.path.name + "*"):
        shutil.copy(file, to)
    return OpenTerminal(terminal.author, to / terminal.path.name)


def test_invariant_1_a_tap_is_on_disk_when_transact_returns(terminal: OpenTerminal, tmp_path: Path) -> None:
    """The files, copied right after each tap and never closed, hold every tap so far."""
    for number in range(3):
        terminal.tap(card(number), at_ms=1_000 + number)
        copy = copied(terminal, tmp_path / str(number))
        assert copy.ledger.status() == terminal.ledger.status()
        assert copy.ledger.view(card(number)).balance_minor == 250
        assert copy.ledger.last_at_ms() == 1_000 + number
        copy.close()


def test_the_view_a_decision_is_made_on(terminal: OpenTerminal) -> None:
    which = card(1)
    assert terminal.tap(which, at_ms=7) == CardView(which, False, 0, False, None)
    assert terminal.tap(which, at_ms=9) == CardView(which, True, 250, False, 7)
    assert terminal.ledger.view(which) == CardView(which, True, 0, False, 9)


def test_without_drafts_nothing_is_written(terminal: OpenTerminal) -> None:
    """A refused tap leaves no trace, and its verdict comes back."""
    before = terminal.ledger.status()
    assert terminal.ledger.transact(card(1), lambda _view: ((), "refused"), 1) == "refused"
    assert terminal.ledger.status() == before


def test_a_decision_that_fails_writes_nothing_and_lets_the_next_one_through(terminal: OpenTerminal) -> None:
    def broken(_view: CardView) -> tuple[list[Draft], None]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        terminal.ledger.transact(card(1), broken, 1)
    assert terminal.ledger.status()["head_seq"] == 0
    terminal.tap(card(1))


def test_a_row_that_cannot_be_written_undoes_the_whole_tap(terminal: OpenTerminal) -> None:
    """Invariant 3: opening and fare of one tap are there together or not at all, on disk and in memory."""
    terminal.tap(card(1))
    before = terminal.ledger.status(), terminal.ledger.books(), terminal.ledger.digest()
    in_the_way = dict.fromkeys(("amount_minor", "at_ms", "clock_epoch", "clock_error_ms"), 0)

    def obstruct(connection: Connection) -> None:
        words = {"route": "", "trip": "", "stop": ""}
        row = OPEN_DELTA.insert().values(place=4, card=card(9), kind=int(Kind.FARE), **words, **in_the_way)
        connection.execute(row)

    terminal.database.write(obstruct).result()
    with pytest.raises(Exception, match="UNIQUE"):
        terminal.ledger.transact(card(2), lambda _view: ([Draft(Kind.OPENING, 500), FARE], None), 1)
    terminal.database.write(
        lambda connection: connection.execute(OPEN_DELTA.delete().where(OPEN_DELTA.c.place == 4))
    ).result()
    after = terminal.ledger.status(), terminal.ledger.books(), terminal.ledger.digest()
    assert after == before
    assert not terminal.ledger.view(card(2)).known
    terminal.tap(card(2))
    terminal.reopen()
    assert terminal.ledger.status()["head_seq"] == 4


def test_invariant_10_what_the_certificate_forbids_is_not_written(tmp_path: Path) -> None:
    """A terminal does not even keep what every other ledger would refuse."""
    modest = world.terminal(1, Limits(frozenset({Kind.FARE}), 0, 300))
    terminal = OpenTerminal(modest, tmp_path / "terminal.db")
    for draft in (Draft(Kind.TOPUP, 1), Draft(Kind.FARE, -301)):
        with pytest.raises(NotPermitted):
            terminal.write(card(1), [draft])
    terminal.write(card(1), [FARE])
    assert terminal.ledger.held() == (1, -250)
    terminal.close()


@pytest.mark.parametrize("at_ms", [-1, 2**48, 1.5, True])
def test_a_time_that_no_block_could_carry_is_refused(terminal: OpenTerminal, at_ms: int) -> None:
    with pytest.raises(MisuseError, match="a time"):
        terminal.write(card(1), [FARE], at_ms=at_ms)
    with pytest.raises(MisuseError, match="4 to 16 bytes"):
        terminal.write(CardId(b"abc"), [FARE])
    assert terminal.ledger.status()["head_seq"] == 0


def test_everything_is_the_same_after_a_restart(terminal: OpenTerminal) -> None:
    """Invariants 3 and 6 over a restart, with sealed and unsealed taps."""
    for number in range(30):
        terminal.tap(card(number % 7), at_ms=number)
        if number in (5, 17):
            terminal.ledger.seal()
    ledger = terminal.ledger
    before = (ledger.status(), ledger.books(), ledger.digest(), ledger.own_head(), ledger.last_at_ms())
    views = [ledger.view(card(number)) for number in range(8)]
    terminal.reopen()
    ledger = terminal.ledger
    assert before == (
        ledger.status(),
        ledger.books(),
        ledger.digest(),
        ledger.own_head(),
        ledger.last_at_ms(),
    )
    assert views == [ledger.view(card(number)) for number in range(8)]
    assert ledger.books().balance
    assert [view.balance_minor for view in views[:7]] == [
        state.balance_minor for _, state in sorted(added_up(terminal.written).items())
    ]


def test_sealing_turns_the_open_taps_into_a_block_that_anybody_can_verify(terminal: OpenTerminal) -> None:
    assert terminal.ledger.seal() is None
    assert terminal.ledger.own_head() == Head(0, GENESIS)
    context = Context("12", "7", "Market", 3, 500)
    terminal.write(card(1), [FARE], at_ms=10, context=context)
    terminal.write(card(2), [FARE, FARE], at_ms=20)
    first = terminal.ledger.seal()
    terminal.write(card(1), [FARE], at_ms=30)
    second = terminal.ledger.seal()
    assert first is not None
    assert second is not None
    stored = [parse(raw) for raw in terminal.ledger.blocks_after(0, 1 << 20)]
    assert stored == [first, second]
    for block in stored:
        verify(block, terminal.author.certificate)
    assert [delta for block in stored for delta in deltas_of(block)] == terminal.written
    assert terminal.ledger.own_head() == second.head
    assert terminal.ledger.frontier() == {terminal.ledger.replica: second.head}
    status = terminal.ledger.status()
    assert {name: status[name] for name in ("held", "held_minor", "open", "head_seq", "position")} == {
        "held": 4,
        "held_minor": -1000,
        "open": 0,
        "head_seq": 4,
        "position": 0,
    }


def test_blocks_come_in_bounded_portions_that_go_on_where_the_last_ended(terminal: OpenTerminal) -> None:
    for number in range(5):
        terminal.tap(card(number))
        terminal.ledger.seal()
    every = terminal.ledger.blocks_after(0, 1 << 20)
    size = len(every[0])
    assert terminal.ledger.blocks_after(0, 1) == every[:1]
    assert terminal.ledger.blocks_after(0, 2 * size + size // 2) == every[:2]
    assert terminal.ledger.blocks_after(parse(every[1]).last_seq, 1 << 20) == every[2:]
    assert terminal.ledger.blocks_after(terminal.ledger.own_head().seq, 1 << 20) == []


def test_a_full_segment_is_sealed_without_being_asked(terminal: OpenTerminal) -> None:
    """A terminal that never syncs still seals; the tap does not wait for it."""
    for number in range(NOMINAL_BLOCK_DELTAS):
        terminal.write(card(number % 20), [FARE])
    waited = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if terminal.ledger.own_head().seq == NOMINAL_BLOCK_DELTAS:
            break
        waited.wait(0.01)
    assert terminal.ledger.status()["open"] == 0
    assert terminal.ledger.books().balance


def test_sealing_twice_at_the_same_time_makes_one_chain(terminal: OpenTerminal) -> None:
    """Invariant 5: no number is ever sealed into two blocks, whoever seals while taps go on."""
    threads = [threading.Thread(target=terminal.ledger.seal) for _ in range(4)]
    for number in range(60):
        terminal.write(card(number), [FARE])
        if number % 15 == 14:
            threads[number // 15].start()
    for thread in threads:
        thread.join(PATIENCE_S)
    terminal.ledger.seal()
    blocks = [parse(raw) for raw in terminal.ledger.blocks_after(0, 1 << 20)]
    assert [delta for block in blocks for delta in deltas_of(block)] == terminal.written
    assert all(later.header.previous == block.hash for block, later in zip(blocks, blocks[1:], strict=False))


def test_history_is_newest_first_over_open_and_sealed_taps(terminal: OpenTerminal) -> None:
    for number in range(9):
        terminal.write(card(number % 2), [FARE], at_ms=number)
        if number in (2, 5):
            terminal.ledger.seal()
    own = [delta for delta in terminal.written if delta.card == card(0)]
    assert terminal.ledger.history(card(0)) == own[::-1]
    assert terminal.ledger.history(card(0), 2) == own[:-3:-1]
    assert terminal.ledger.history(card(5)) == []


def test_a_new_identity_keeps_every_unsettled_delta_of_the_old_one(terminal: OpenTerminal) -> None:
    """Re-pairing replaces identity and keeps what is unsettled, as it was signed."""
    terminal.write(card(1), [FARE])
    old = terminal.ledger.replica
    terminal.close()
    terminal.author = world.TERMINALS[1]
    with pytest.raises(MisuseError, match="seal the open taps with the old key"):
        terminal.open()
    terminal.author = world.TERMINALS[0]
    terminal.open()
    block = terminal.ledger.seal()
    terminal.close()
    terminal.author = world.TERMINALS[1]
    terminal.open()
    assert block is not None
    terminal.ledger.transact(card(1), lambda _view: ([FARE], None), 5)
    terminal.ledger.seal()
    assert terminal.ledger.view(card(1)).balance_minor == -500
    assert terminal.ledger.held() == (2, -500)
    assert terminal.ledger.blocks_after(0, 1 << 20, old) == [block.raw]
    assert set(terminal.ledger.frontier()) == {old, terminal.ledger.replica} == set(terminal.ledger.authors())


def test_a_ledger_retires_when_another_takes_its_database(terminal: OpenTerminal) -> None:
    """Invariants 5 and 6: it would decide on, number and settle what it no longer knows."""
    terminal.tap(card(1))
    terminal.ledger.seal()
    old, new = terminal.ledger, world.TERMINALS[1]
    ledger = TerminalLedger(terminal.database, world.FLEET_KEY.public_key, new.key, new.certificate)
    before = ledger.status(), ledger.digest()
    body = FleetDocument.new().body
    for use in (
        lambda: old.transact(card(1), lambda _view: ([FARE], None), 5),
        lambda: old.view(card(1)),
        old.seal,
        lambda: old.put_document(SignedDocument.seal(world.HUB_KEY, world.FLEET, FLEET_DOCUMENT, 1, body)),
    ):
        with pytest.raises(MisuseError, match="given to another ledger"):
            use()
    assert (ledger.status(), ledger.digest()) == before
    assert ledger.document(FLEET_DOCUMENT) is None
    ledger.transact(card(1), lambda _view: ([FARE], None), 5)
    assert ledger.view(card(1)).balance_minor == 0


def test_a_ledger_that_may_not_take_a_database_leaves_the_one_before_at_work(
    terminal: OpenTerminal,
) -> None:
    terminal.tap(card(1))
    new = world.TERMINALS[1]
    with pytest.raises(MisuseError, match="seal the open taps"):
        TerminalLedger(terminal.database, world.FLEET_KEY.public_key, new.key, new.certificate)
    terminal.tap(card(1))
    assert terminal.ledger.view(card(1)).balance_minor == 0


def test_an_error_of_a_statement_is_not_its_own_cause(terminal: OpenTerminal) -> None:
    """It would read as an endless chain in a log."""
    with pytest.raises(Exception, match="no such table") as caught, terminal.database.direct as sql:
        sql.row("SELECT 1 FROM nowhere", ())
    assert caught.value.__cause__ is None


def test_a_ledger_belongs_to_one_fleet(terminal: OpenTerminal, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="its own key and fleet"):
        TerminalLedger(
            terminal.database,
            world.OTHER_FLEET_KEY.public_key,
            terminal.author.key,
            terminal.author.certificate,
        )
    foreign = issue(
        world.OTHER_FLEET_KEY,
        terminal.author.certificate.terminal,
        "bus 1",
        Role.TERMINAL,
        terminal.author.key.public_key,
        world.ANYTHING,
    )
    with pytest.raises(ForeignFleet):
        TerminalLedger(terminal.database, world.OTHER_FLEET_KEY.public_key, terminal.author.key, foreign)


def test_documents_are_replaced_by_newer_ones_only(terminal: OpenTerminal) -> None:
    """Invariant 8: an old document, sent again, changes nothing."""
    body = FleetDocument.new().body
    first, second = (
        SignedDocument.seal(world.HUB_KEY, world.FLEET, FLEET_DOCUMENT, version, body) for version in (1, 2)
    )
    assert terminal.ledger.document(FLEET_DOCUMENT) is None
    assert terminal.ledger.put_document(second)
    assert not terminal.ledger.put_document(first)
    assert not terminal.ledger.put_document(second)
    terminal.reopen()
    assert terminal.ledger.document(FLEET_DOCUMENT) == second


def test_the_memory_answers_while_the_disk_is_busy(terminal: OpenTerminal) -> None:
    """Invariant 7: what an event loop may ask never waits for a transaction."""
    go = threading.Event()
    running = threading.Event()

    def hold(_connection: Connection) -> None:
        running.set()
        assert go.wait(PATIENCE_S)

    future = terminal.database.write(hold)
    assert running.wait(PATIENCE_S)
    ledger = terminal.ledger
    assert ledger.status()["held"] == ledger.held()[0] == 0
    assert ledger.own_head().seq == 0
    assert ledger.last_at_ms() is None
    assert ledger.settled()[1] == 0
    go.set()
    future.result()


def test_taps_from_several_threads_are_numbered_without_a_gap(terminal: OpenTerminal) -> None:
    def tap_some(first: int) -> None:
        for number in range(20):
            terminal.ledger.transact(card(first + number), lambda _view: ([FARE], None), number)

    threads = [threading.Thread(target=tap_some, args=(100 * index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert terminal.ledger.status()["head_seq"] == 60
    terminal.ledger.seal()
    blocks = [parse(raw) for raw in terminal.ledger.blocks_after(0, 1 << 20)]
    assert [delta.seq for block in blocks for delta in deltas_of(block)] == list(range(1, 61))


@pytest.mark.parametrize("use", ["view", "seal", "digest", "books", "frontier"])
def test_a_decision_that_uses_the_ledger_is_refused_instead_of_hanging(
    terminal: OpenTerminal, use: str
) -> None:
    """And what it asked for does not happen later either."""
    terminal.tap(card(1))
    before = terminal.ledger.status()

    def choose(view: CardView) -> tuple[list[Draft], object]:
        arguments = [view.card] if use == "view" else []
        return [FARE], getattr(terminal.ledger, use)(*arguments)

    with pytest.raises(MisuseError, match="wait for itself"):
        terminal.ledger.transact(card(1), choose, 1)
    terminal.database.write(lambda _connection: None).result()
    assert terminal.ledger.status() == before


def test_an_open_ledger_can_be_given_to_the_next_process(terminal: OpenTerminal) -> None:
    terminal.tap(card(1))
    terminal.close()
    with Database.open(terminal.path, KEY, layout=TERMINAL_LAYOUT) as database:
        ledger = TerminalLedger(
            database, world.FLEET_KEY.public_key, terminal.author.key, terminal.author.certificate
        )
        assert ledger.view(card(1)).balance_minor == 250
