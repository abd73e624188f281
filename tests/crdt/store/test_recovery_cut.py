"""The power fails at any moment of a recovery from an old copy (invariants 4 and 5)."""

from collections.abc import Callable

import pytest

from crdt.block import Block, parse
from crdt.documents import SignedDocument
from crdt.facts import CardId, Delta, Kind
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store import segment
from crdt.store.inline import InlineDatabase
from crdt.store.marks import Marks
from crdt.store.terminal import TerminalLedger
from tests.crdt import world
from tests.crdt.store.fleet import KEY, card, deltas_of
from tests.crdt.store.recoveries import FARE, NEW


class PowerCut(BaseException):
    """The power goes."""


class Board:
    """A terminal's board: its database and marks outlive power cuts, its programs do not."""

    def __init__(self) -> None:
        self.cuts: list[int] = []  # at which of the switch's moments the power goes
        self.moments = 0
        self.kept = b""
        self.identity = world.TERMINALS[0]
        self.database = InlineDatabase.open(None, KEY, cut=self.moment)

    def moment(self) -> None:
        self.moments += 1
        if self.moments in self.cuts:
            raise PowerCut

    def put(self, data: bytes) -> None:
        self.moment()
        self.kept = data
        self.moment()

    def start(self) -> TerminalLedger:
        """The program starts: with the identity that is stored."""
        stored = self.database.get_secret("identity")
        if stored is not None:
            self.identity = NEW
        return self._ledger({})

    def take_over(self) -> TerminalLedger:
        ledger = self._ledger({"identity": NEW.key.replica})
        self.identity = NEW
        return ledger

    def _ledger(self, secrets: dict[str, bytes]) -> TerminalLedger:
        author = NEW if secrets else self.identity
        marks = Marks(self.kept, self.put, lambda length: self.moments.to_bytes(length, "big"))
        public_key = world.FLEET_KEY.public_key
        return TerminalLedger(self.database, public_key, author.key, author.certificate, marks, secrets)

    def power_on(self) -> None:
        self.database = self.database.after_power_cut(cut=self.moment)


def _branch(times: list[int], sizes: list[int]) -> list[Block]:
    author = world.TERMINALS[0]
    facts = [
        Delta(author.key.replica, seq, card(1), Kind.FARE, -250, at_ms) for seq, at_ms in enumerate(times, 1)
    ]
    return author.blocks(facts, sizes)


def _recover(board: Board, hub: list[Block], then: Callable[[str], None]) -> TerminalLedger:
    """What a sync run does after the hub said RESTORED; `then` is told of each step that is done."""
    ledger = board.start()
    if board.identity is not NEW:
        ledger.concede(world.TERMINALS[0].key.replica, [block.raw for block in hub])
        then("conceded")
        ledger = board.take_over()
        then("taken over")
    ledger.seal()
    return ledger


@pytest.mark.parametrize("part_rows", [1, segment.PART_ROWS])
def test_invariants_4_and_5_a_power_cut_at_any_moment_of_a_recovery_changes_nothing_in_the_end(
    monkeypatch: pytest.MonkeyPatch, part_rows: int
) -> None:
    """Before and after every commit and every write of the marks; the recovery is then begun again.

    Also where what is written again is much, and put down a part at a time.
    """
    monkeypatch.setattr(segment, "PART_ROWS", part_rows)
    hub = _branch([1, 2, 3, 4], [2, 2])

    def prepared() -> Board:
        board = Board()
        ledger = board.start()
        for at_ms in (1, 2):
            ledger.transact(card(1), lambda _view: ([FARE], None), at_ms)
        ledger.seal()
        for at_ms in (3, 14, 15):
            ledger.transact(card(1), lambda _view: ([FARE], None), at_ms)
        ledger.seal()
        ledger.transact(card(1), lambda _view: ([FARE], None), 16)
        board.moments = 0
        return board

    def outcome(ledger: TerminalLedger) -> tuple[object, ...]:
        raws = [
            raw for replica in sorted(ledger.frontier()) for raw in ledger.blocks_after(0, 1 << 20, replica)
        ]
        times = sorted(fact.at_ms for raw in raws for fact in deltas_of(parse(raw)))
        return ledger.view(card(1)), ledger.held(), ledger.suspended, times, ledger.status()["quarantined"]

    board = prepared()
    expected = outcome(_recover(board, hub, lambda _step: None))
    assert expected[1:] == ((7, -1750), False, [1, 2, 3, 4, 14, 15, 16], 1)
    moments = board.moments
    assert moments > 12
    interrupted = set()
    for cut in range(1, moments + 1):
        board = prepared()
        board.cuts = [cut]
        steps: list[str] = ["begun"]
        with pytest.raises(PowerCut):
            _recover(board, hub, steps.append)
        interrupted.add(steps[-1])
        board.power_on()
        ledger = board.start()
        assert ledger.view(card(1)).balance_minor in (-1500, -1750)  # with the hub's fact, or before it
        assert outcome(_recover(board, hub, lambda _step: None)) == expected, f"cut at {cut}"
    assert interrupted == {"begun", "conceded", "taken over"}


def test_a_card_view_never_loses_a_tap_over_a_recovery() -> None:
    """The passback rule knows the facts written again by their own times."""
    board = Board()
    ledger = board.start()
    ledger.transact(CardId(card(1)), lambda _view: ([FARE], None), 50)
    ledger.seal()
    ledger.concede(world.TERMINALS[0].key.replica, [block.raw for block in _branch([7], [])])
    ledger = board.take_over()
    assert ledger.view(card(1)).last_fare_at_ms == 50
    assert ledger.last_at_ms() == 50


@pytest.mark.parametrize("part_rows", [1, segment.PART_ROWS])
def test_invariant_6_no_power_cut_takes_from_a_view_what_a_list_cuts_off_and_is_written_again(
    monkeypatch: pytest.MonkeyPatch, part_rows: int
) -> None:
    """The list that ends the identity of before holds in the instant that its facts are written again."""
    monkeypatch.setattr(segment, "PART_ROWS", part_rows)
    old = world.TERMINALS[0].key.replica
    body = Revocations({old: 2}, frozenset({old})).encode()
    listed = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)
    hub = [block.raw for block in _branch([1, 2], [])]

    def prepared() -> Board:
        board = Board()
        ledger = board.start()
        for at_ms in (1, 2, 13, 14):
            ledger.transact(card(1), lambda _view: ([FARE], None), at_ms)
            if at_ms in (2, 14):
                ledger.seal()
        ledger.transact(card(2), lambda _view: ([FARE], None), 15)
        board.moments = 0
        return board

    def take_up(board: Board) -> TerminalLedger:
        ledger = board.start()
        ledger.concede(old, hub, ended=True, listed=listed)
        return ledger

    board = prepared()
    assert take_up(board).revocations().cut_offs == {old: 2}
    moments = board.moments
    assert moments >= 4
    for cut in range(1, moments + 1):
        board = prepared()
        board.cuts = [cut]
        with pytest.raises(PowerCut):
            take_up(board)
        board.power_on()
        views = [board.start().view(card(number)) for number in (1, 2)]
        seen = [(view.balance_minor, view.last_fare_at_ms) for view in views]
        assert seen == [(-1000, 14), (-250, 15)], f"cut at {cut}"
        ledger = take_up(board)
        assert [ledger.view(card(number)) for number in (1, 2)] == views
        assert ledger.frontier()[old].seq == 2
        board.take_over().seal()
        assert board.start().held() == (5, -1250)
