"""The demo's hub: founded, started, asked over its control socket."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from hub.fleettext import format_money
from hub.founding import found
from hub.settings import load

from .cast import EXPONENT
from .control import Control
from .errors import NotAnswering
from .home import LOOPBACK, Place, hub_settings, write_settings
from .process import Child
from .readings import read_hub
from .state import Reading

START_TIMEOUT_S: Final = 60.0


class Depot:
    """Starts, kills and reads one hub. `on_death` is told when its process ends unasked."""

    def __init__(self, place: Place, port: int, on_death: Callable[[Child], None]) -> None:
        self.url = f"https://{LOOPBACK}:{port}/"
        self.password = secrets.token_urlsafe(9)
        self.database = place.state / "ledger.db"
        self.key_file = place.key_file
        self.reading: Reading | None = None
        self._place = place
        self._port = port
        self._process = Child(
            "the hub", ["-m", "hub", "run", "--settings", str(place.settings)], place.log, on_death=on_death
        )
        self._control = Control(place.control_socket, "the hub")

    async def start(self) -> None:
        """Founds a fleet and starts its hub; returns when it can be asked."""
        await asyncio.to_thread(self._found)
        await self.switch_on()

    async def switch_on(self) -> None:
        """Starts the hub's process, the first time or again; ChildDied when it does not come up."""
        await self._process.start()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not await self._answers():
            if not self._process.running:
                raise await self._process.obituary("ended while it started")
            if time.monotonic() > deadline_s:
                raise await self._process.obituary(f"was not ready within {START_TIMEOUT_S:.0f} s")
            await asyncio.sleep(0.05)

    async def invite(self) -> str:
        """A one-time code for a terminal."""
        return str((await self._control.post("/invite"))["code"])

    async def set_fleet(self, changes: Mapping[str, str]) -> None:
        """Changes fares and policy; names and texts as in hub.fleettext."""
        await self._control.post("/fleet", changes)

    async def top_up(self, uid: str, amount_minor: int) -> None:
        """Sells a card some money; nothing at all for 0."""
        if amount_minor:
            amount = format_money(amount_minor, EXPONENT)
            await self._control.post(
                "/topup", {"card": uid, "amount": amount, "request": secrets.token_hex(8)}
            )

    async def read(self) -> Reading | None:
        """Asks the hub what its ledger says; None when it does not answer."""
        with suppress(NotAnswering):
            self.reading = await read_hub(self._control, self.reading)
            return self.reading
        return None

    async def kill(self) -> None:
        """kill -9 of the hub."""
        await self._process.kill()

    async def stop(self) -> None:
        """Ends the hub's process in order."""
        await self._process.stop()
        await self._control.close()

    def _found(self) -> None:
        write_settings(self._place, hub_settings(self._place, self._port))
        found(load(self._place.settings), self.password, os.environ)

    async def _answers(self) -> bool:
        with suppress(NotAnswering):
            await self._control.get("/status")
            return True
        return False
