"""A long chain gives way while passengers tap: nothing that is written again holds up a tap (invariant 7)."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crdt.block import Block, parse, seal
from crdt.documents import SignedDocument
from crdt.errors import MisuseError, RefusalCode
from crdt.facts import CardId, Delta, Kind
from crdt.frontier import GENESIS
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store import segment
from crdt.store.inline import InlineDatabase
from crdt.store.terminal import TerminalLedger
from tests.crdt import world
from tests.crdt.store.fleet import KEY, card, deltas_of
from tests.crdt.store.recoveries import FARE, NEW

OLD = world.TERMINALS[0]
PART = 4
FORKED = 10 * PART  # facts that the terminal has and the hub has not


class Watched(InlineDatabase):
    """Lets something happen after each write, and counts the rows that the largest of them changed."""

    between: Callable[[], None] | None = None
    most_rows = 0

    def write_and_wait(self, *arguments: Any, **options: Any) -> Any:
        before = self._raw.total_changes
        result = super().write_and_wait(*arguments, **options)
        self.most_rows = max(self.most_rows, self._raw.total_changes - before)
        between, self.between = self.between, None
        if between is not None:
            between()
            self.between = between
        return result


def ledger_on(database: InlineDatabase, author: world.Terminal = OLD) -> TerminalLedger:
    return TerminalLedger(database, world.FLEET_KEY.public_key, author.key, author.certificate)


def tap(ledger: TerminalLedger, at_ms: int) -> None:
    ledger.transact(card(at_ms % 3), lambda _view: ([FARE], None), at_ms)


def fact(seq: int, at_ms: int) -> Delta:
    return Delta(OLD.key.replica, seq, card(at_ms % 3), Kind.FARE, -250, at_ms)


def times_of(ledger: TerminalLedger) -> Counter[int]:
    """When what the ledger has was taken, sealed or not."""
    times: Counter[int] = Counter()
    for number in range(3):
        times.update(delta.at_ms for delta in ledger.history(card(number), 10_000))
    return times


def balances(ledger: TerminalLedger) -> list[int]:
    return [ledger.view(card(number)).balance_minor for number in range(3)]


def worth(times: Counter[int]) -> list[int]:
    """The balances of cards with just these fares."""
    return [-250 * sum(count for at_ms, count in times.items() if at_ms % 3 == number) for number in range(3)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "PART_ROWS", PART)


@pytest.fixture
def database() -> Iterator[Watched]:
    with Watched.open(None, KEY) as opened:
        yield opened


@pytest.fixture
def hub() -> list[bytes]:
    """Two facts that the terminal has too, and two that it has not."""
    first = seal(OLD.key, world.FLEET, [fact(1, 1), fact(2, 2)], GENESIS)
    return [first.raw, seal(OLD.key, world.FLEET, [fact(3, 901), fact(4, 902)], first.hash).raw]


@pytest.fixture
def forked(database: Watched) -> TerminalLedger:
    """A terminal of which all but the first two facts are in another chain than the hub's, and some open."""
    ledger = ledger_on(database)
    for at_ms in range(1, FORKED + 3):
        tap(ledger, at_ms)
        if at_ms % 4 == 2:
            ledger.seal()
    tap(ledger, 500)
    database.most_rows = 0
    return ledger


def local(last: int) -> Counter[int]:
    return Counter([*range(1, FORKED + 3), 500, *range(1001, last + 1)])


def test_taps_go_on_while_a_long_chain_gives_way_and_each_counts_once(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """Invariants 4 and 6: after each part the view is exact, with the taps that came in between."""
    last = 1000
    seen: list[bool] = []

    def between() -> None:
        nonlocal last
        done = forked.suspended
        expected = local(last) + (Counter([901, 902]) if done else Counter())
        assert balances(forked) == worth(expected)
        last += 1
        tap(forked, last)
        assert balances(forked) == worth(expected + Counter([last]))
        seen.append(done)

    database.between = between
    done = forked.concede(OLD.key.replica, hub)
    database.between = None
    assert seen.count(False) > FORKED / PART
    assert (done.reissued, len(done.quarantined)) == (FORKED, FORKED // 4)
    expected = local(last) + Counter([901, 902])
    assert times_of(forked) == expected
    assert forked.books().balance
    new = ledger_on(database, NEW)
    assert (balances(new), times_of(new)) == (worth(expected), expected)
    new.seal()
    own = [parse(raw) for raw in new.blocks_after(0, 1 << 20)]
    written = [delta for block in own for delta in deltas_of(block)]
    assert [delta.seq for delta in written] == list(range(1, len(written) + 1))
    assert Counter(delta.at_ms for delta in written) == expected - Counter([1, 2, 901, 902])


def test_taps_see_exact_balances_while_a_list_cuts_off_what_is_written_again(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """Invariant 6: from before the list is kept until all is written again no view lacks a fact."""
    body = Revocations({OLD.key.replica: 2}, frozenset({OLD.key.replica})).encode()
    listed = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)
    last = 1000

    def between() -> None:
        nonlocal last
        assert balances(forked) == worth(local(last))
        last += 1
        tap(forked, last)
        assert balances(forked) == worth(local(last))

    database.between = between
    done = forked.concede(OLD.key.replica, hub[:1], ended=True, listed=listed)
    database.between = None
    assert (done.reissued, len(done.quarantined)) == (FORKED, FORKED // 4)
    assert {entry.reason for entry in forked.quarantined(100)} == {RefusalCode.REVOKED}
    assert forked.revocations().cut_offs == {OLD.key.replica: 2}
    assert times_of(ledger_on(database, NEW)) == local(last)


def test_no_write_of_a_long_concession_puts_down_more_than_a_part(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """A tap waits for one write at most: two rows a block that leaves, or a part, and never all its facts."""
    forked.concede(OLD.key.replica, hub)
    assert database.most_rows < FORKED
    database.most_rows = 0
    ledger_on(database, NEW)
    assert database.most_rows <= 5, "an identity that takes over writes nothing that is open anew"


def test_a_segment_that_is_sealed_meanwhile_is_planned_for_anew(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """What was planned for the chain as it was before is not carried out on another."""
    sealed: list[Block | None] = []

    def between() -> None:
        if not sealed:
            sealed.append(forked.seal())

    database.between = between
    done = forked.concede(OLD.key.replica, hub)
    database.between = None
    assert sealed[0] is not None
    assert done.reissued == FORKED + 1
    assert sealed[0].hash in done.quarantined
    assert times_of(forked) == local(1000) + Counter([901, 902])


def test_what_an_earlier_try_left_half_way_never_counts(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """The power failed between two parts: the facts are where they were, and the next try begins anew."""
    count = 0

    def between() -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt

    database.between = between
    with pytest.raises(KeyboardInterrupt):
        forked.concede(OLD.key.replica, hub)
    database.between = None
    again = ledger_on(database)
    assert times_of(again) == local(1000)
    assert again.status()["open"] == 1
    tap(again, 1001)
    assert again.concede(OLD.key.replica, hub).reissued == FORKED
    assert times_of(ledger_on(database)) == local(1001) + Counter([901, 902])


def test_taps_show_while_a_second_long_chain_gives_way(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """Invariant 4: where nothing is open, what comes meanwhile stands before what does not show yet."""
    forked.concede(OLD.key.replica, hub)
    new = ledger_on(database, NEW)
    tap(new, 1001)
    new.seal()
    last, count = 1001, 0

    def between() -> None:
        nonlocal last, count
        last += 1
        tap(new, last)
        count += 1
        if count == 5:
            raise KeyboardInterrupt

    other = Delta(NEW.key.replica, 1, card(2), Kind.FARE, -250, 902)
    database.between = between
    with pytest.raises(KeyboardInterrupt):
        new.concede(NEW.key.replica, [seal(NEW.key, world.FLEET, [other], GENESIS).raw])
    database.between = None
    assert times_of(ledger_on(database, NEW)) == local(last) + Counter([901, 902])


def test_an_identity_that_takes_over_knows_what_a_restart_would_read(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """Invariant 6: it takes over what is in memory, which is what is on the disk."""

    def outcome(ledger: TerminalLedger) -> tuple[object, ...]:
        views = [ledger.view(CardId(card(number))) for number in range(3)]
        return views, ledger.status(), ledger.held(), ledger.last_at_ms(), ledger.credit_left()

    tap(forked, 1_000)
    forked.concede(OLD.key.replica, hub)
    taken_over = outcome(ledger_on(database, NEW))
    assert taken_over == outcome(ledger_on(database, NEW))


def test_who_has_just_paid_is_known_after_the_rest_of_a_month_was_written_again(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """Invariant 6, for the passback rule: by the identity that goes on, by a restart, and once it is sealed;
    what is written again stands last, and was before."""
    last = 1_000

    def between() -> None:
        nonlocal last
        last += 1
        tap(forked, last)

    database.between = between
    forked.concede(OLD.key.replica, hub)
    database.between = None
    views = [forked.view(card(number)) for number in range(3)]
    assert {view.last_fare_at_ms for view in views} == {last - 2, last - 1, last}
    for _ in range(2):
        goes_on = ledger_on(database, NEW)
        assert [goes_on.view(card(number)) for number in range(3)] == views
        assert goes_on.last_at_ms() == last
    while goes_on.seal() is not None:
        pass
    assert [ledger_on(database, NEW).view(card(number)) for number in range(3)] == views


def test_a_former_identitys_chain_is_not_compared_with_others(
    database: Watched, forked: TerminalLedger, hub: list[bytes]
) -> None:
    """Invariant 5: a block of who writes now may be on its way with what that would take away."""
    forked.concede(OLD.key.replica, hub)
    new = ledger_on(database, NEW)
    with pytest.raises(MisuseError):
        new.concede(OLD.key.replica, hub, kin=[(NEW.key.replica, [], [])])
