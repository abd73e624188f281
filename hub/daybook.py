"""Days of service: which taps of a day are here, terminal by terminal, and the figures once it is closed.

A day goes from the fleet's hour (`day_starts_at_h`) to the same one next morning, in the fleet's time zone,
but for what closed days have of that: they keep dates and limits when hour or zone are changed. Facts
belong to a day by their author's clock. Closing fixes a day's figures; what comes later restates them by
adjustments that say when they were learnt.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from http import HTTPStatus
from zoneinfo import ZoneInfo

from crdt.certificate import AuthorCertificate, Role
from crdt.errors import MisuseError
from crdt.facts import ReplicaId
from crdt.fleet import FleetSettings
from crdt.store.completeness import AuthorsDay, Behind, Complete, Missing, Open
from crdt.store.days import NO_FIGURES, Day, DayReport, Figures
from crdt.store.hub import HubLedger
from hub.authornames import author_name
from hub.day_page import AdjustmentRow, DayPage, GapRow, TerminalDay
from hub.errors import RequestRefused
from hub.evidence import silent_row
from hub.registry import Identities, Registry
from hub.silent_row import SilentRow

HUB_NAME = "hub"  # of taps that the hub has booked for a terminal that will not
LOOK_BACK_DAYS = 7  # that are closed late by themselves; after a longer pause a person decides about the rest


class Daybook:
    """Reports on days, and closes them."""

    def __init__(
        self,
        ledger: HubLedger,
        registry: Registry,
        policy: Callable[[], Awaitable[FleetSettings]],
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._policy = policy
        self._now_ms = now_ms

    async def named(self, text: str) -> date:
        """The day written like 2026-11-21, or "today" or "yesterday"; RequestRefused when it is none."""
        if text in ("today", "yesterday"):
            return await self._today() - timedelta(days=text == "yesterday")
        try:
            return date.fromisoformat(text if len(text) == len("2026-11-21") else "")
        except ValueError:
            raise RequestRefused("day", f"{text[:40]!r} is not a day, such as 2026-11-21.") from None

    async def report(self, text: str) -> DayPage:
        """What is known of a day; see `named`. Of the one that has its time, where it has none of its own."""
        return await self._page(await self._report(await self.named(text)))

    async def close(self, text: str) -> DayPage:
        """Fix a day's figures. RequestRefused while it has not ended."""
        report = await self._report(await self.named(text))
        if self._now_ms() < report.day.end_ms:
            sentence = f"{_date(report.day)} has not ended; its figures still grow."
            raise RequestRefused("not_ended", sentence, HTTPStatus.CONFLICT)
        return await self._page(await self._closed(report.day))

    async def close_old(self, after_h: int) -> list[date]:
        """Close the days that ended `after_h` hours ago or earlier, LOOK_BACK_DAYS of them; those that were
        closed now."""
        closed = []
        due_ms = self._now_ms() - after_h * 3_600_000
        last = await asyncio.to_thread(day_at, await self._policy(), due_ms)  # not yet: it ends after that
        for back in range(LOOK_BACK_DAYS, 0, -1):
            report = await self._report(last - timedelta(days=back))
            if report.closed_ms is None and report.figures and report.day.end_ms <= due_ms:
                await self._closed(report.day)
                closed.append(_date(report.day))
        return closed

    async def _report(self, wanted: date) -> DayReport:
        day = await asyncio.to_thread(span, await self._policy(), wanted)
        return await asyncio.wrap_future(self._ledger.report(day))

    async def _closed(self, day: Day) -> DayReport:
        return await asyncio.wrap_future(self._ledger.close_day(day, self._now_ms()))

    async def _today(self) -> date:
        """The day that it is: another than by the fleet's hour, where that was changed."""
        now_ms = self._now_ms()
        wanted = await asyncio.to_thread(day_at, await self._policy(), now_ms)
        day = (await self._report(wanted)).day
        while day.end_ms <= now_ms:
            wanted = max(wanted, _date(day)) + timedelta(days=1)
            day = (await self._report(wanted)).day
        while now_ms < day.start_ms:
            wanted = min(wanted, _date(day)) - timedelta(days=1)
            day = (await self._report(wanted)).day
        return _date(day)

    async def _page(self, report: DayReport) -> DayPage:
        authors = self._ledger.authors()
        rows = []
        for name, replicas in writers(authors, await self._registry.identities()):
            found = await asyncio.wrap_future(self._ledger.day_of(replicas, report.day))
            rows.append(_row(name, found, report, replicas))
        hubs = [replica for replica, author in authors.items() if author.role is Role.HUB]
        figures = (await asyncio.wrap_future(self._ledger.day_of(hubs, report.day))).figures
        booked = AuthorsDay(Behind() if figures is None else Complete(figures.taps), figures)
        rows.append(_row(HUB_NAME, booked, report, hubs))
        now_ms = self._now_ms()
        return DayPage(
            _date(report.day).isoformat(),
            await asyncio.to_thread(limits, await self._policy(), report.day),
            report.day.start_ms,
            report.day.end_ms,
            report.day.end_ms <= now_ms,
            report.closed_ms,
            [row for row in rows if _belongs(row)],
            _adjustments(report, authors),
        )


def writers(
    authors: Mapping[ReplicaId, AuthorCertificate], identities: Sequence[Identities]
) -> list[Identities]:
    """Every terminal that may have written, with its enrolled identities, by name.

    Known to the registry, or by its certificates alone: a hub that was put back from a backup learns of
    terminals that were paired since only from what they wrote.
    """
    found = [Identities(name, [one for one in replicas if one in authors]) for name, replicas in identities]
    terminals = {authors[each].terminal: one for one in found for each in one.replicas}
    for replica, author in authors.items():
        if author.role is Role.TERMINAL:
            one = terminals.get(author.terminal)
            if one is None:
                one = terminals[author.terminal] = Identities(author.name, [])
                found.append(one)
            if replica not in one.replicas:
                one.replicas.append(replica)
    return sorted(found, key=lambda one: one.name.casefold())


def span(policy: FleetSettings, wanted: date) -> Day:
    """When a day of service begins and ends. RequestRefused beyond the calendar. Looks up the time zone."""
    zone = ZoneInfo(policy.timezone)
    try:
        start, end = (
            datetime(each.year, each.month, each.day, policy.day_starts_at_h, tzinfo=zone).timestamp()
            for each in (wanted, wanted + timedelta(days=1))
        )
    except (ValueError, OverflowError):
        start = end = -1
    try:
        return Day(int(start) * 1000, int(end) * 1000, wanted.toordinal())
    except MisuseError as error:  # before 1970, or by clocks that are not at quarters of an hour
        raise RequestRefused("day", f"{wanted} is no day of service.") from error


def day_at(policy: FleetSettings, at_ms: int) -> date:
    """The day of service at a moment."""
    local = datetime.fromtimestamp(at_ms // 1000, ZoneInfo(policy.timezone))
    return (local.replace(tzinfo=None) - timedelta(hours=policy.day_starts_at_h)).date()


def limits(policy: FleetSettings, day: Day) -> str:
    """When a day begins and ends, for people, by the fleet's clocks. Looks up the time zone."""
    zone = ZoneInfo(policy.timezone)
    ends = (datetime.fromtimestamp(at_ms // 1000, zone) for at_ms in (day.start_ms, day.end_ms))
    return " to ".join(f"{end.day} {end:%b %Y %H:%M}" for end in ends) + f", {policy.timezone}"


def _date(day: Day) -> date:
    return date.fromordinal(day.number)


def _row(name: str, counted: AuthorsDay, report: DayReport, replicas: Sequence[ReplicaId]) -> TerminalDay:
    found, figures = counted
    # The history, which the report is made of, may lack taps that are said to be here.
    restated = _sum(report.restated, replicas) if figures is None else figures
    closed = restated if report.closed_ms is None else _sum(report.figures, replicas)
    gaps: Sequence[GapRow] = ()
    contested = last_heard_ms = 0
    silent: Sequence[SilentRow] = ()
    if isinstance(found, Complete):
        state, taps = "complete", found.taps
    elif isinstance(found, Missing):
        state, taps, contested = "missing", found.taps, found.contested
        gaps = [GapRow(gap.after_tap, gap.first_seq, gap.last_seq) for gap in found.gaps]
    elif isinstance(found, Open):
        state, taps, last_heard_ms = "open", found.until, found.last_heard_ms
        silent = [silent_row(name, one) for one in found.silent]
    else:
        state, taps = "behind", 0
    return TerminalDay(
        name=name,
        state=state,
        taps=taps,
        gaps=gaps,
        contested=contested,
        last_heard_ms=last_heard_ms,
        closed_taps=closed.taps,
        closed_fares_minor=closed.fares_minor,
        restated_taps=restated.taps,
        restated_fares_minor=restated.fares_minor,
        silent=silent,
    )


def _belongs(row: TerminalDay) -> bool:
    """One without a tap belongs to a day until it has said that it had none."""
    return row.state != "complete" or any((row.taps, row.closed_taps, row.restated_taps))


def _sum(figures: Mapping[ReplicaId, Figures], replicas: Sequence[ReplicaId]) -> Figures:
    total = NO_FIGURES
    for replica in replicas:
        total = total.plus(figures.get(replica, NO_FIGURES))
    return total


def _adjustments(report: DayReport, authors: Mapping[ReplicaId, AuthorCertificate]) -> list[AdjustmentRow]:
    return [
        AdjustmentRow(
            one.learnt_ms,
            author_name(authors, one.replica),
            one.figures.taps,
            one.figures.fares_minor,
        )
        for one in report.adjustments
    ]
