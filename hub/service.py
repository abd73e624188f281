"""What an operator may do: invite, block, top up, revoke, set fares. Used by pages and command line.

Every method is a coroutine that never blocks the event loop, and raises RequestRefused (with a sentence and
an HTTP status) for what it does not do. Amounts come in as text and are parsed exactly;
no float touches money.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hub.fleettext import format_money
from hub.invites import Invite

__all__ = ["Booking", "FleetView", "Invite", "Service", "format_money"]


@dataclass(frozen=True, slots=True)
class Booking:
    """A top-up that is booked. `repeated`: this request id had been booked before, nothing was added."""

    card: str
    amount_minor: int
    balance_minor: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet's settings as text by name (what `set_fleet` takes, see hub.fleettext), and their version."""

    values: Mapping[str, str]
    version: int
    currency: str
    exponent: int


class Service:
    """The write side of the hub."""

    async def invite(self) -> Invite:
        """A fresh pairing code, good for ten minutes, three tries and one terminal."""
        raise NotImplementedError

    async def open_invites(self) -> list[Invite]:
        """The codes that are still good, newest first."""
        raise NotImplementedError

    async def top_up(self, card: str, amount: str, request_id: str) -> Booking:
        """Book `amount` (a decimal such as "12.50" in the fleet's currency) once per `request_id`.

        `request_id`: 8 to 40 characters made by the caller (a page puts a fresh one into its form), so that
        a repeated or resent request books once.
        """
        raise NotImplementedError

    async def set_blocked(self, card: str, blocked: bool) -> None:
        """Put a card on the hotlist or take it off."""
        raise NotImplementedError

    async def revoke(self, terminal: str) -> str:
        """Stop a terminal (by name or hex id) from syncing, at once; returns its name."""
        raise NotImplementedError

    async def fleet(self) -> FleetView:
        """Fares and policy."""
        raise NotImplementedError

    async def set_fleet(self, changes: Mapping[str, str]) -> FleetView:
        """Change fares or policy; the names are those of `fleet().values`."""
        raise NotImplementedError
