"""Keeps the terminal in touch with its hub, in the event loop, never in a tap's way.

Online it pushes as soon as a tap is durable, and otherwise speaks up once a heartbeat. Offline it tries all
known addresses, waits longer each time, and starts at once when somebody asks. A new address that is
announced hurries it too, within bounds.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from crdt.errors import LedgerError
from edge.addresses import AddressBook, HubAddress
from edge.backoff import Backoff
from edge.calling import Caller
from edge.clock import TerminalClock
from edge.delivery import Pause
from edge.errors import (
    EdgeError,
    HubBusy,
    HubDistrusted,
    HubUnreachable,
    Superseded,
    UplinkError,
)
from edge.pace import Bucket
from edge.sync import Outcome
from edge.terminal import Enrolment, Terminal
from edge.waiting import Wait, happens

MOST_ASKED = 3
"""Addresses that are asked in one attempt once one is busy, with that. Where none has room, the next attempts
ask only the first of them: one, then two, four, and at last twenty."""

HINTED_AT_ONCE, HINTED_EVERY_S = 3, 10.0
"""Attempts that addresses on the LAN may bring forward, one after the other and for long: whoever is on it
announces as many as he likes."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UplinkStatus:
    """How the uplink stands; `trouble` is a sentence, "" while all is well. Times are terminal time in ms."""

    online: bool = False
    hub: HubAddress | None = None
    last_sync_at_ms: int | None = None
    trouble: str = "not paired yet"
    disputed: str = ""
    """What the hub does not take: of this terminal's earlier identities, of its document; "" when nothing."""


class Uplink:
    """The loop. `tapped` is for any thread, the rest for the event loop's."""

    def __init__(
        self,
        terminal: Terminal,
        addresses: AddressBook,
        caller: Caller,
        clock: TerminalClock,
        backoff: Backoff,
        heartbeat_s: float,
        *,
        proven: Callable[[HubAddress], object] = lambda _address: None,
        wait: Wait = happens,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`proven` keeps an address that worked, and may wait."""
        self._terminal = terminal
        self._addresses = addresses
        self._caller = caller
        self._clock = clock
        self._backoff = backoff
        self._heartbeat_s = heartbeat_s
        self._proven = proven
        self._wait = wait
        self._loop = asyncio.get_running_loop()
        self._due = asyncio.Event()
        self._asking: list[asyncio.Future[UplinkStatus]] = []
        self._elsewhere = Pause()  # before a busy hub's other addresses are asked again
        self._hinted = Bucket(HINTED_AT_ONCE, 1 / HINTED_EVERY_S, elapsed_s)  # attempts that hints bring on
        self._looking = False  # the last attempt has found no hub, not even one that refuses
        self._hurried = False  # woken by a tap alone
        self.status = UplinkStatus()

    def tapped(self) -> None:
        """A tap is durable. From any thread; does nothing that could wait."""
        try:
            self._loop.call_soon_threadsafe(self._tap_due)
        except RuntimeError:  # the loop is closed: the terminal is going down, the tap is on disk
            return

    def hinted(self, hints: Iterable[HubAddress]) -> None:
        """The network announces these addresses now; to be called at each look at it, news or none.

        While no hub is found, one that has not been tried is tried at once, within HINTED_EVERY_S.
        """
        self._addresses.hint(hints)
        self._hurry()

    def changed(self) -> None:
        """There is something new for the hub that is no tap. Does not wait for it."""
        self._tap_due()

    async def sync_now(self) -> UplinkStatus:
        """Run once, now, and say how it went. A failure is in the status, not an exception."""
        asked: asyncio.Future[UplinkStatus] = self._loop.create_future()
        self._asking.append(asked)
        self._due.set()
        return await asked

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._due.clear()
                asking, self._asking = self._asking, []
                hurried, self._hurried = self._hurried and not asking, False
                pause_s = await self._attempt(retry=not hurried)
                self._answer(asking)
                self._hurry()
                await self._wait(self._due, pause_s)
        finally:
            self._answer(self._asking)
            await self._caller.hang_up()

    def _answer(self, asking: Iterable[asyncio.Future[UplinkStatus]]) -> None:
        for asked in asking:
            if not asked.done():
                asked.set_result(self.status)

    def _hurry(self) -> None:
        if self._looking and self._addresses.untried and self._hinted.admits():
            self._looking = False
            self._due.set()

    def _tap_due(self) -> None:
        # Offline the backoff rules: a busy bus must not knock at every tap.
        if self.status.online:
            self._hurried = True
            self._due.set()

    async def _attempt(self, *, retry: bool) -> float:
        """One attempt at all known addresses; how many seconds to wait before the next.

        `retry`: also offer what the hub refused of earlier identities. Not at each tap, that costs data.
        """
        self._looking = False
        enrolment = self._terminal.enrolment
        if enrolment is None:
            self.status = replace(self.status, online=False, trouble="not paired yet")
            return self._heartbeat_s
        try:
            complete = await self._anywhere(enrolment, retry)
        except Superseded:
            return 0
        except HubBusy as error:
            self._went_offline(str(error))
            return self._backoff.asked_s(error.wait_s)
        except (EdgeError, LedgerError) as error:
            self._went_offline(str(error))
            self._looking = isinstance(error, HubUnreachable | HubDistrusted)
            return self._backoff.next_s()
        except Exception:
            # Taps must not stop for a bug out here, whatever provoked it.
            log.exception("the uplink failed: this is a bug, please report it")
            self._went_offline("the uplink failed by a bug; its log has the details")
            return self._backoff.next_s()
        self._backoff.reset()
        self._elsewhere = Pause()
        return self._heartbeat_s if complete else 0

    async def _anywhere(self, enrolment: Enrolment, retry: bool) -> bool:
        """Sync at the first address where the hub answers; whether that came to its end.

        A busy one is come back to when it says, but first the others are asked whether they have room: they
        may be other processes on the same ledger. Not each time: where none has, each is asked for nothing.
        """
        failure: UplinkError = HubUnreachable("No hub was found yet: nothing is announced, and none is set.")
        busy: HubBusy | None = None
        asked = 0  # the first that was busy, and those after it
        for address in self._addresses.candidates():
            self._addresses.tried(address)
            try:
                outcome = await self._caller.call(enrolment, address, retry=retry)
            except Superseded:
                raise
            except HubBusy as error:
                busy = error if busy is None else busy
            except UplinkError as error:
                if busy is None and not isinstance(error, HubUnreachable | HubDistrusted):
                    raise
                log.debug("%s", error)
                failure = error
            else:
                await self._went_online(address, outcome)
                return outcome.complete
            asked += busy is not None
            if asked == MOST_ASKED or (asked == 1 and not self._elsewhere.is_over()):
                break
        if asked > 1:
            self._elsewhere.begin()
        raise failure if busy is None else busy

    async def _went_online(self, address: HubAddress, outcome: Outcome) -> None:
        if not self.status.online:
            log.info("online: hub at %s", address)
        if outcome.blocks:
            log.info("the hub has taken %d blocks", outcome.blocks)
        if self._addresses.prove(address):
            await asyncio.to_thread(self._proven, address)
        now = await asyncio.to_thread(self._clock.read)
        self.status = UplinkStatus(
            online=True,
            hub=address,
            last_sync_at_ms=now.at_ms,
            trouble="",
            disputed=self._caller.disputed,
        )

    def _went_offline(self, trouble: str) -> None:
        if self.status.trouble != trouble:
            log.warning("offline: %s", trouble)
        self.status = replace(self.status, online=False, trouble=trouble)
