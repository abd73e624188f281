"""The exposure of a real hub's ledger: what cards stand at, what terminals away may believe of them."""

import asyncio
from dataclasses import replace

from crdt.cursor import beginning
from crdt.exposure import Rules, Standing
from crdt.facts import CardId, Kind, TerminalId
from crdt.fleet import REFUSE, FleetSettings
from crdt.pull import Pull
from crdt.terminal_status import Status
from hub.app import now_ms
from hub.exposure import Exposures, is_in_touch, judge, standings
from hub.published import Published
from hub.registry import Terminal
from tests.hub.conftest import Depot
from tests.hub.registered import registered
from tests.hub.terminal import CARD

POLICY = FleetSettings(flat_fare_minor=250, passback_window_s=60, unknown_card=REFUSE)
NOW = Published({1: Rules.of(POLICY)})
OTHER = CardId(bytes.fromhex("04ffeedd"))
DAY_MS = 86_400_000
STRICT = Rules.of(POLICY)._replace(lends=False)
BUS = registered(1, seen_ms=0, settled_ms=0)


async def read(depot: Depot, since: int | None) -> list[Standing]:
    await depot.projected()
    found = await asyncio.wrap_future(depot.hub.database.read(lambda sql: standings(sql, since)))
    return sorted(found)


async def test_a_terminal_away_may_believe_what_was_taken_since_it_settled(depot: Depot) -> None:
    """Else the figure were no bound: the card is empty here, and full on a bus that has not heard of it."""
    bus, away = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await bus.push(bus.taps(1000, kind=Kind.OPENING), bus.taps(600, card=OTHER, kind=Kind.OPENING))
    await depot.projected()
    await away.settle()
    await bus.push(bus.taps(-250, -250))
    rows = {row.name: row for row in await depot.served.registry.terminals()}
    assert rows["Bus 2"].settled_ms is not None
    assert rows["Bus 1"].settled_ms is None
    assert await read(depot, rows["Bus 2"].settled_fact) == [Standing(500, 1000), Standing(600, 600)]
    assert await read(depot, None) == [Standing(500, 500), Standing(600, 600)]
    assert CARD != OTHER


async def test_what_was_given_and_has_not_arrived_is_not_known(depot: Depot) -> None:
    """An answer may be lost: the terminal believes of the card what it had installed before."""
    bus, away = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await bus.push(bus.taps(1000, kind=Kind.OPENING))
    await depot.projected()
    page = await away.settle()
    await bus.push(bus.taps(-250, -250))
    await depot.projected()
    before = (await known_to(depot, "Bus 2")).settled_fact
    for _ in range(2):
        await away.exchange(Pull(page.series, page.position, beginning(page.position)))
    assert (await known_to(depot, "Bus 2")).settled_fact == before
    assert Standing(500, 1000) in await read(depot, before)
    await away.settle()
    assert (await known_to(depot, "Bus 2")).settled_fact > before


async def known_to(depot: Depot, name: str) -> Terminal:
    return next(row for row in await depot.served.registry.terminals() if row.name == name)


async def test_cards_that_stand_alike_are_counted_together(depot: Depot) -> None:
    bus = await depot.pair()
    cards = [CardId(bytes([4, 0, 0, number])) for number in range(5)]
    for card in cards:
        bus.taps(300, card=card, kind=Kind.OPENING)
    await bus.push(*bus.chain)
    assert await read(depot, None) == [Standing(300, 300, 5)]


def test_terminals_in_touch_are_one_group_and_each_away_is_one_more() -> None:
    online, one, two = buses(3)
    cards = [Standing(1000, 1000)]
    together = judge(NOW, [online], [], cards, 30 * DAY_MS)
    assert (together.fleet_minor, together.in_touch_minor, together.offline_minor) == (250, 250, 0)
    apart = judge(NOW, [online, one, two], [one, two], cards, 30 * DAY_MS)
    assert (apart.offline, apart.longest_ms) == (2, 30 * DAY_MS)
    assert apart.fleet_minor == 2 * 1000 + 3 * 250
    assert apart.unlent_minor == 2 * (1000 + 250)
    assert apart.offline_minor == apart.fleet_minor - 250


def test_nobody_knows_how_long_a_terminal_will_be_away() -> None:
    """ "At most in all" holds for an outage that has just begun; its time limits what is owed by now."""
    online, away = buses(2)
    cards = [Standing(10_000, 10_000)]
    for ago_ms, by_now_minor in ((91_000, 0), (3_600_000, 250)):
        view = judge(NOW, *leaving(online, replace(away, settled_ms=DAY_MS - ago_ms)), cards, DAY_MS)
        assert (view.fleet_minor, view.by_now_minor) == (10_000 + 2 * 250, by_now_minor)


def test_what_cards_may_owe_by_now_grows_with_the_time_away() -> None:
    online, away = buses(2)
    owed = [
        judge(NOW, *leaving(online, replace(away, settled_ms=DAY_MS - ms)), [Standing(0, 2000)], DAY_MS)
        for ms in (0, 60_000, 120_000, 3_600_000)
    ]
    assert [view.by_now_minor for view in owed] == [250, 500, 750, 2250]
    assert {view.fleet_minor for view in owed} == {2250 + 250}


def test_terminals_in_touch_believe_the_balance() -> None:
    """What one that is away believes counts only there: else lent rides were more than the policy lends."""
    online, away = buses(2)
    cards = [Standing(0, 2000, 3)]
    view = judge(NOW, *leaving(online, away), cards, DAY_MS)
    assert view.lends
    assert view.in_touch_minor == 3 * 250
    assert view.fleet_minor == 3 * (250 + 2000 + 250)
    strict = judge(Published({1: STRICT}), *leaving(online, away), cards, DAY_MS)
    assert not strict.lends
    assert (strict.in_touch_minor, strict.fleet_minor) == (0, 3 * 2000)


def test_a_terminal_that_is_away_judges_by_the_rules_it_has() -> None:
    """A stricter policy lowers nothing where nobody has heard of it."""
    online, away = buses(2)
    before = judge(NOW, *leaving(online, away), [Standing(1000, 1000)], DAY_MS)
    assert before.unlent_minor == before.fleet_minor - 250, "those away would lend on"
    rules = Published({1: Rules.of(POLICY), 2: STRICT})
    told = judge(rules, *leaving(having(online, 2), having(away, 1)), [Standing(1000, 1000)], DAY_MS)
    assert told.fleet_minor == before.unlent_minor
    both = judge(rules, *leaving(having(online, 2), having(away, 2)), [Standing(1000, 1000)], DAY_MS)
    assert both.fleet_minor == 1000


def test_a_terminal_in_touch_that_has_not_fetched_the_newest_settings_judges_by_its_own() -> None:
    rules = Published({1: Rules.of(POLICY), 2: STRICT})
    view = judge(rules, [having(BUS, 1)], [], [Standing(0, 0)], DAY_MS)
    assert (view.lends, view.fleet_minor, view.unlent_minor) == (True, 250, 0)


def test_what_a_terminal_may_have_been_given_since_counts_as_well() -> None:
    """An answer arrives, and the terminal goes away before it says so."""
    generous = Rules.of(POLICY)._replace(fare_minor=900)
    rules = Published({1: STRICT, 4: generous, 7: STRICT})
    for version, expected in ((0, generous), (1, generous), (6, generous), (7, STRICT), (99, STRICT)):
        assert rules.since(version) == expected._replace(lends=expected is generous)


def test_a_card_that_a_terminal_has_not_heard_of_gets_its_opening_balance_there() -> None:
    rules = Published({1: Rules.of(FleetSettings(flat_fare_minor=250, opening_balance_minor=500))})
    view = judge(rules, [BUS], [BUS], [Standing(0, 0)], 30 * DAY_MS)
    assert view.fleet_minor == 500 + 250


def buses(count: int) -> list[Terminal]:
    return [replace(BUS, terminal=TerminalId(bytes([number] * 16))) for number in range(count)]


def leaving(online: Terminal, away: Terminal) -> tuple[list[Terminal], list[Terminal]]:
    return [online, away], [away]


def having(terminal: Terminal, version: int) -> Terminal:
    return replace(terminal, status={"fares_version": version})


def test_a_fleet_without_terminals_loses_nothing() -> None:
    view = judge(NOW, [], [], [Standing(1000, 1000)], DAY_MS)
    assert (view.fleet_minor, view.per_card_minor, view.in_touch_minor) == (0, 0, 0)


async def test_the_figure_rests_a_while_after_it_was_made(depot: Depot) -> None:
    """It reads every card, so an open page must not ask for it again and again."""
    clock = iter([0.0, 1.0, 1.0, 5.0, 30.0, 31.0, 31.0])

    registry = depot.served.registry
    exposures = Exposures(depot.hub.database, registry, 90, lambda: 0, lambda: next(clock))
    first = await exposures.get()
    assert await exposures.get() is first
    assert await exposures.get() is not first


async def test_terminals_are_told_apart_by_whether_they_are_in_touch(depot: Depot) -> None:
    bus = await depot.pair("Bus 1")
    await depot.pair("Bus 2")
    await bus.push(bus.taps(1000, kind=Kind.OPENING))
    await bus.settle()

    (row, _) = await depot.served.registry.terminals()
    assert row.seen_ms is not None
    now_ms = row.seen_ms + 60_000
    exposures = Exposures(depot.hub.database, depot.served.registry, 90, lambda: now_ms, lambda: 0.0)
    view = await exposures.get()
    assert (view.offline, view.loading, view.behind) == (1, 0, 0)


def test_a_terminal_that_calls_and_does_not_install_is_not_in_touch() -> None:
    """Its disk is full, say: what others take it does not hear by calling."""
    at_ms, online_ms = DAY_MS, 90_000
    calls = registered(1, seen_ms=at_ms, settled_ms=at_ms - 2 * online_ms)
    assert is_in_touch(calls, at_ms, online_ms)
    for late in (
        replace(calls, settled_ms=at_ms - 3 * online_ms),
        replace(calls, settled_ms=None),
        replace(calls, seen_ms=at_ms - online_ms - 1),
        replace(calls, seen_ms=None),
    ):
        assert not is_in_touch(late, at_ms, online_ms)


async def test_who_calls_and_has_no_balances_yet_is_told_apart_from_who_is_away(depot: Depot) -> None:
    """It loads its first settlement, or has installed none for a while; others call no more."""
    bus, loading, _ = [await depot.pair(name) for name in ("Bus 1", "Bus 2", "Bus 3")]
    await bus.push(bus.taps(1000, kind=Kind.OPENING))
    await bus.settle()
    await loading.exchange(Pull())
    later_ms = 0
    registry = depot.served.registry
    exposures = Exposures(depot.hub.database, registry, 90, lambda: now_ms() + later_ms, lambda: later_ms)
    view = await exposures.get()
    assert (view.offline, view.loading, view.behind) == (2, 1, 0)
    later_ms = 600_000
    for one in (bus, loading):
        row = await known_to(depot, "Bus 1" if one is bus else "Bus 2")
        await registry.saw(row.terminal, now_ms() + later_ms, "", None)
    view = await exposures.get()
    assert (view.offline, view.loading, view.behind) == (3, 1, 1)


async def test_what_is_spent_counts_also_where_a_revocation_took_newer_facts_away(depot: Depot) -> None:
    """The place in the history up to which a terminal knows is not given to other facts later."""
    bus, away, thief = [await depot.pair(name) for name in ("Bus 1", "Bus 2", "Bus 3")]
    await bus.push(bus.taps(1000, kind=Kind.OPENING))
    await depot.projected()
    await thief.push(thief.taps(-1, -1, -1, -1, card=OTHER))
    await depot.projected()
    await away.settle()
    terminals = await depot.served.registry.terminals()
    since = next(row.settled_fact for row in terminals if row.name == "Bus 2")
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 3", "cut_off": 0})
    await bus.push(bus.taps(-250, -250, -250))
    await depot.projected()
    found = await asyncio.wrap_future(depot.hub.database.read(lambda sql: standings(sql, since)))
    assert Standing(250, 1000) in found, "Bus 2 still believes 1,000 of the card"


async def test_a_policy_that_terminals_away_have_not_heard_of_lowers_nothing(depot: Depot) -> None:
    """They lend by the version that they said they have."""
    bus, away = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await bus.push(bus.taps(1000, kind=Kind.OPENING))
    await depot.projected()
    await away.settle()
    version = (await depot.ask("GET", "/fleet"))["version"]
    await away.exchange(Status({"fares_version": version}))
    exposures = Exposures(depot.hub.database, depot.served.registry, 0, lambda: 2**62, lambda: 0.0)
    before = await exposures.get()
    await depot.ask("POST", "/fleet", {"negative_ride": "no"})
    after = await exposures.get()
    assert (before.lends, after.lends) == (True, False)
    assert before.offline == 2
    assert before.fleet_minor == after.fleet_minor
