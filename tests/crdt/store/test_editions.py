"""Settlement pages from memory: the same as from the tables, and shared only where making them takes long."""

import itertools
from collections.abc import Iterator

import pytest

from crdt.block import seal
from crdt.cursor import START, Cursor, beginning
from crdt.frontier import GENESIS
from crdt.settlement import NO_SERIES, Page
from crdt.store import editions
from crdt.store.editions import ALL_INSTANTS, INSTANT_S, MAX_AGE_S, SHARING_S, Editions, PagePull
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.test_hub import fares

ONE, OTHER, _ = world.TERMINALS
LIMIT = 3


class Asker:
    """Asks editions as the hub's ledger does. `now_s`: their clock; `costly`: each page takes a second."""

    def __init__(self, fleet: Fleet, *, shared: bool = False) -> None:
        self.now_s = 0.0
        self.costly = False
        self._worked = itertools.count()
        self._fleet = fleet
        self.editions = Editions(
            fleet.hub._seal, shared=shared, clock=lambda: self.now_s, cpu_clock=self._cpu_s
        )
        fleet.hub.on_commit(lambda change: self.editions.changed(change.position))

    def page(self, base: int, after: Cursor | None = None, limit: int = LIMIT) -> Page:
        """The page for a terminal with `base` installed."""
        series = self._fleet.hub.page(NO_SERIES, 0, START, 1).result().series
        pull = PagePull(series, base, beginning(base) if after is None else after, limit)
        known = self.editions.known(pull)
        if known is not None:
            return known
        return self._fleet.hub_database.read(lambda connection: self.editions.page(connection, pull)).result()

    def _cpu_s(self) -> float:
        return float(next(self._worked)) if self.costly else 0.0


def position(fleet: Fleet) -> int:
    """The hub's, now."""
    return fleet.hub.totals().result().position


def tap(fleet: Fleet, *cards: int) -> None:
    """One fare on each card, as one merge."""
    head = fleet.hub.heads().result().get(ONE.key.replica)
    seq = 1 if head is None else head.seq + 1
    previous = GENESIS if head is None else head.hash
    block = seal(ONE.key, world.FLEET, fares(ONE, list(cards), seq), previous)
    assert not fleet.hub.merge([block.raw], world.CERTIFICATES).result().refused


def changes(fleet: Fleet) -> Iterator[None]:
    """Makes everything that moves a card or a head, one after the other."""
    for number in (1, 5):
        tap(fleet, number, number + 1, number + 2)
        yield
        for blocked, hotlisted in ((number, True), (40 + number, True), (40 + number, False)):
            fleet.hub.set_hotlisted(card(blocked), hotlisted).result()
            yield
        tap(fleet, 1)
        yield


@pytest.mark.parametrize("rows", [4, 1000])
def test_invariant_6_every_page_is_what_the_tables_say(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """From every position that a terminal may have and every cursor it may have reached, byte for byte."""
    monkeypatch.setattr(editions, "MAX_ROWS", rows)
    asker, bases = Asker(fleet), [0]
    for _ in changes(fleet):
        bases.append(position(fleet))
        for base in bases:
            after, page = None, None
            while page is None or not page.final:
                page = asker.page(base, after)
                wanted = fleet.hub.page(page.series, base, page.after, LIMIT).result()
                assert page.raw == wanted.raw, f"from {base} after {page.after}"
                after = page.until


def test_a_position_that_was_never_made_begins_a_full_load(fleet: Fleet) -> None:
    """Invariant 4: what a terminal has of a hub's lost time is not gone on from."""
    asker = Asker(fleet)
    tap(fleet, 1)
    assert asker.page(position(fleet) + 1).restarts


def test_invariant_6_a_page_is_not_older_than_the_one_before_it(fleet: Fleet) -> None:
    """Another process gave that one: what had changed by then was left for later, and is not in the edition's
    order yet."""
    asker = Asker(fleet, shared=True)
    tap(fleet, 9)
    base = position(fleet)
    for number in (1, 2, 3):
        tap(fleet, number)
    asker.costly = True
    assert asker.page(base).final
    tap(fleet, 1)
    first = fleet.hub.page(b"S" * 16, base, beginning(base), 1).result()
    assert [row.card for row in first.rows] == [card(2)]
    following = asker.page(base, first.until)
    assert [row.card for row in following.rows] == [card(3), card(1)]
    assert following.position == position(fleet)


def test_while_pages_are_cheap_each_is_of_its_own_instant(fleet: Fleet) -> None:
    """A terminal's own tap is settled in the answer to the exchange that brought it."""
    asker = Asker(fleet)
    tap(fleet, 1)
    base = asker.page(position(fleet)).position
    for _ in range(5):
        tap(fleet, 2)
        assert asker.page(base).position == position(fleet)


def test_costly_pages_are_shared_for_some_seconds_and_not_longer(fleet: Fleet) -> None:
    """Those who missed the same are given the same page, which is right for its position."""
    asker = Asker(fleet)
    tap(fleet, 1)
    base = position(fleet)
    tap(fleet, 2)
    asker.costly = True
    first = asker.page(base)
    tap(fleet, 3)
    asker.now_s += MAX_AGE_S - 0.1
    assert asker.page(base) is first
    asker.now_s += 0.1
    assert [row.card for row in asker.page(base).rows] == [card(2), card(3)]


def test_pages_are_of_their_own_instant_again_when_the_rush_is_over(fleet: Fleet) -> None:
    """Sharing ends by itself."""
    asker = Asker(fleet)
    tap(fleet, 1)
    base = position(fleet)
    asker.costly = True
    asker.page(base)
    asker.costly = False
    asker.now_s += SHARING_S + MAX_AGE_S
    asker.page(base)
    tap(fleet, 2)
    assert asker.page(base).position == position(fleet)


def test_what_did_not_change_is_answered_without_the_database(fleet: Fleet) -> None:
    """A heartbeat with nothing new costs no read."""
    asker = Asker(fleet)
    tap(fleet, 1)
    page = asker.page(position(fleet))
    pull = PagePull(page.series, page.base, page.after, LIMIT)
    assert asker.editions.known(pull) is page


def test_beside_other_processes_the_tables_are_asked_each_time(fleet: Fleet) -> None:
    """What another hub process merged is in the next answer, though nobody told this one."""
    asker = Asker(fleet, shared=True)
    tap(fleet, 1)
    base = position(fleet)
    page = asker.page(base)
    assert asker.editions.known(PagePull(page.series, base, page.after, LIMIT)) is None
    tap(fleet, 2)
    assert asker.page(base).position == position(fleet)


def test_what_somebody_knows_is_never_later_than_what_was_installed(fleet: Fleet) -> None:
    """The exposure counts what a terminal does not know; too much of it is safe, too little is not."""
    asker = Asker(fleet)
    assert asker.editions.installed(1) is None
    pages = []
    for number in range(1, 4):
        tap(fleet, number)
        pages.append(asker.page(position(fleet)))
        fleet.hub.latest(500).result()
        asker.now_s += INSTANT_S
    counts = []
    for ago, page in enumerate(reversed(pages), 1):
        known = asker.editions.installed(page.position)
        assert known is not None
        assert known.age_s == ago * INSTANT_S
        counts.append(known.last_fact)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] <= len(fleet.hub.latest(500).result())
    assert asker.editions.installed(pages[0].position - 1) is None


def test_what_nobody_asked_for_between_two_pulls_makes_no_settlement_younger(fleet: Fleet) -> None:
    """Who asks alone and seldom knows nothing of what came since it was last told that there is no more."""
    asker = Asker(fleet)
    tap(fleet, 1)
    base = asker.page(position(fleet)).position
    asker.now_s += 3_600
    asker.page(base)
    told = asker.editions.installed(base)
    assert told is not None
    assert told.age_s == 0
    tap(fleet, 2)
    asker.now_s += 36_000
    assert asker.page(base).position > base
    assert asker.editions.installed(base) == told._replace(age_s=36_000)


def test_many_instants_are_remembered_and_of_older_ones_one_a_second(fleet: Fleet) -> None:
    """A heartbeat later a terminal says what it has installed: what it was given is known then, in a rush
    too, or a little less."""
    asker = Asker(fleet)
    given = []
    for number in range(1, 100):
        tap(fleet, number)
        asker.now_s += INSTANT_S / 10
        given.append(asker.page(position(fleet)).position)
    assert all(asker.editions.installed(each) is not None for each in given)
    assert len(asker.editions._instants) == ALL_INSTANTS + 1 + (len(given) - ALL_INSTANTS) // 10
