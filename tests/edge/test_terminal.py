"""What the terminal is changes at once: nobody sees it half changed, and nothing stale decides about it."""

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from aiohttp import web

from crdt.pairing import PairingCode
from crdt.store.database import Database
from edge.clock import FLOOR_STEP_MS, TerminalClock
from edge.errors import NotCompared
from edge.promised import Promised
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, document
from tests.edge.test_pairing_restored import CODE, OPENED, Restored
from tests.edge.test_restored import Line
from tests.edge.test_uplink import enrolled, ride
from tests.edge.testhub import TestHub, open_ledger


def test_nobody_sees_a_promise_beside_the_identity_that_was_promised(paired: Terminal, fleet: Fleet) -> None:
    """Invariant 5: a reader between the two would compare the new identity as if it were the ended one."""
    before = enrolled(paired).identity
    promised = Promised(fleet.enrol(terminal=before.certificate.terminal), (before.replica,))
    paired.promise(promised, before)
    seen: list[bool] = []

    def look(frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code is Terminal.enrol.__code__:
            taken_up = enrolled(paired).identity is promised.identity
            seen.append(taken_up == (paired.promised is promised))
            return look
        return None

    tracing = sys.gettrace()
    sys.settrace(look)
    try:
        paired.enrol(promised.identity, before)
    finally:
        sys.settrace(tracing)
    assert enrolled(paired).identity is promised.identity
    assert seen
    assert not any(seen), "after every line it is the one or the other"


def test_what_was_told_of_the_clock_is_kept_over_a_start(tmp_path: Path) -> None:
    """A day's completeness rests on it: nothing is dated before that, whatever the clock says then."""

    def clock(database: Database, wall_ms: int) -> TerminalClock:
        terminal = Terminal(database)
        return TerminalClock(
            floor_ms=terminal.clock_floor_ms,
            epoch=terminal.next_clock_epoch(),
            save_epoch=terminal.save_clock_epoch,
            save_floor=terminal.save_clock_floor,
            wall_ms=lambda: wall_ms,
        )

    now_ms = 1_780_000_000_000
    with Database.open(tmp_path / "ledger.db", bytes(32)) as database:
        before = clock(database, now_ms)
        before.compare(now_ms, 1_000)
        told_ms = before.dated_from()
    assert now_ms - FLOOR_STEP_MS < told_ms <= now_ms
    with Database.open(tmp_path / "ledger.db", bytes(32)) as database:
        after = clock(database, 0)
        assert after.read().at_ms >= told_ms
        assert after.dated_from() == told_ms


class Meanwhile(TestHub):
    """While it pairs a terminal, that is told that its storage is an old copy."""

    __test__ = False
    terminal: Terminal

    async def _pair_finish(self, request: web.Request) -> web.Response:
        await asyncio.to_thread(enrolled(self.terminal).ledger.suspend)
        return await super()._pair_finish(request)


async def test_a_terminal_that_turns_out_to_be_restored_while_it_is_paired_stays_what_it_was(
    paired: Terminal, database: Database, hub_database: Database, fleet: Fleet, tmp_path: Path
) -> None:
    """Invariant 5: the hub was not told to end it, so its open taps may be there already. A sync mends it."""
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    hub = Meanwhile(fleet, ledger, document=document(fleet, FARES), code=PairingCode.parse(CODE))
    hub.terminal = paired
    await asyncio.to_thread(ride, paired, OPENED)
    before = enrolled(paired).identity
    async with hub.serving(tmp_path) as address:
        with pytest.raises(NotCompared, match="old copy.*farebox-tech sync.*ask for a new code"):
            await Restored(paired, (), tmp_path, database).pair(address)
    assert enrolled(paired).identity is before
    assert (await Line(hub, paired).sync()).renewed
    assert await asyncio.wrap_future(ledger.balance(OPENED)) == 750
