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
