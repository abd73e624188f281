"""Looking for a hub to pair with, on a LAN that is looked at all the time and says what it likes."""

import asyncio
import os
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crdt.store.database import Database
from edge.addresses import AddressBook, HubAddress
from edge.enrolling import FIND_TIMEOUT_S, LATE_S, MAX_ASKED, SEARCH_S, Enroller, Way
from edge.errors import HubUnreachable
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.test_pairing import LIMITS
from tests.edge.testhub import TestHub, open_ledger

CODE = "4-7K2M9QX"
LOOK_S = 0.2
"""From one look at the LAN to the next, while somebody keeps changing what is on it."""
FOR_EVER_S = 600.0


@dataclass
class Lan:
    """The time, which passes while the technician waits, and what is announced meanwhile."""

    announced: Callable[[], list[HubAddress]]
    book: AddressBook = field(default_factory=lambda: AddressBook(None, None))
    now_s: float = 0.0
    enroller: Enroller | None = None

    async def wait(self, _heard: asyncio.Event, within_s: float) -> None:
        """For the enroller: until the next look at the LAN, or so many seconds have passed."""
        assert self.enroller is not None
        assert self.now_s < FOR_EVER_S
        if within_s < LOOK_S:
            self.now_s += max(0, within_s)
            return
        self.now_s += LOOK_S
        self.book.hint(self.announced())
        self.enroller.hinted()

    async def pair(self, terminal: Terminal) -> None:
        self.enroller = Enroller(
            terminal,
            self.book,
            "Bus 12 front",
            Way(LIMITS, ""),
            lambda _address: None,
            os.urandom,
            wait=self.wait,
            elapsed_s=lambda: self.now_s,
        )
        await self.enroller.pair(CODE, None)


async def test_where_no_hub_is_announced_the_search_ends(terminal: Terminal) -> None:
    """A look at the LAN that finds nothing is no news: the technician is to hear what to do."""
    lan = Lan(list)
    with pytest.raises(HubUnreachable, match="No hub is announced.* --hub HOST:PORT"):
        await lan.pair(terminal)
    assert lan.now_s == pytest.approx(FIND_TIMEOUT_S)


async def test_hubs_that_come_and_go_do_not_prolong_the_search(terminal: Terminal) -> None:
    """Invariant 8: those that were tried already."""
    two = [[HubAddress("127.1.0.1", 1)], [HubAddress("127.1.0.2", 1)]]

    def announced() -> list[HubAddress]:
        two.reverse()
        return two[0]

    lan = Lan(announced)
    with pytest.raises(HubUnreachable, match="No hub answers at"):
        await lan.pair(terminal)
    assert lan.now_s <= 2 * LOOK_S + LATE_S


async def test_hubs_that_keep_silent_do_not_prolong_the_search(terminal: Terminal) -> None:
    """Invariant 8: nobody cancels it, and the next one waits for its end."""
    silent_s = 15.0
    tried = 0

    class Silent(AddressBook):
        def candidates(self, but: Container[HubAddress] = ()) -> list[HubAddress]:
            nonlocal tried
            tried += 1
            lan.now_s += silent_s
            self.hint([HubAddress(f"127.2.0.{tried}", 1)])
            return super().candidates(but)

    lan = Lan(list, Silent(None, None))
    with pytest.raises(HubUnreachable, match=f"Too many hubs.* none of the {int(SEARCH_S / silent_s)} asked"):
        await lan.pair(terminal)
    assert lan.now_s == pytest.approx(SEARCH_S)


async def test_of_too_many_hubs_it_is_told_what_one_said(
    terminal: Terminal, hub_database: Database, fleet: Fleet, tmp_path: Path
) -> None:
    """A code that is mistyped may be all that is wrong."""
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    async with TestHub(fleet, ledger).serving(tmp_path) as address:
        nobody = [HubAddress(f"127.3.0.{number}", 1) for number in range(MAX_ASKED)]
        lan = Lan(lambda: [*nobody[:3], address, *nobody[3:]])
        with pytest.raises(HubUnreachable, match=r"Too many hubs.* mistyped, used, or too old\..*invite"):
            await lan.pair(terminal)
