"""The identity to go on as in a run: where the present one is replaced, or its chain is not the hub's."""

from collections.abc import Awaitable, Callable, Sequence

from crdt.facts import ReplicaId
from edge.comparing import take_up
from edge.errors import LedgerBehind, Superseded, UplinkError
from edge.run import Exchange, Run

Renew = Callable[[Sequence[bytes]], Awaitable[Exchange]]
"""Have the hub promise a new identity, telling it the hashes of blocks whose facts were written again; the
way to the hub as that. Raises UplinkError."""


class NextIdentity:
    """Asked for once in a run."""

    def __init__(self, run: Run, renew: Renew | None) -> None:
        self._run = run
        self._renew = renew
        self.taken = False
        """Whether the run goes on as it."""
        self._refused = False  # by the hub, in this run
        self._waits = False  # for a run in which the hub takes more of the present chain
        self._compares: set[ReplicaId] = set()  # chains that are left to it

    @property
    def is_due(self) -> bool:
        """Whether the terminal was replaced, by the list held now, and the hub was not asked so far, but may
        be."""
        return self._run.ledger.was_replaced and not (self.taken or self._refused or self._waits)

    @property
    def installs(self) -> bool:
        """Whether settlements are its to install: it writes again what the hub lacks."""
        return self._run.ledger.was_replaced or bool(self._compares)

    def compares(self, replica: ReplicaId) -> bool:
        """Whether it gives way to the hub's chain of this one."""
        return replica in self._compares

    def leave(self, replica: ReplicaId) -> None:
        """It has to compare with the hub's chain of this one, and give way to it."""
        self._compares.add(replica)

    def postpone(self) -> bool:
        """Whether it waits for another run, and is not due in this one: the hub takes no more of the present
        chain now, and with the renewal that ends."""
        self._waits = self._run.identity.replica in self._run.skipped
        return self._waits

    async def take(self) -> bool:
        """Go on as it; False when there is none to be had now.

        Raises UplinkError when the hub has promised one and does not show what it has of this one: as this
        one nothing may be said any more.
        """
        run, before = self._run, self._run.identity.replica
        if self._refused:
            return False
        try:
            if self._renew is None or self.taken:
                raise _needs_identity()  # noqa: TRY301 - as when the hub gives none
            exchange = await self._renew(await run.use(run.ledger.reissued))
        except UplinkError as error:
            self._refused = True
            run.give_up(before, error)
            return False
        promised = run.terminal.promised
        if promised is None:
            raise Superseded("The terminal was paired anew meanwhile.")
        run.become(await take_up(run.terminal, promised, exchange), exchange)
        self.taken = True
        self._compares.clear()
        return True


def _needs_identity() -> LedgerBehind:
    return LedgerBehind(
        "An old copy of the storage was restored. Taps are taken and kept; they can be sent once the terminal"
        " has a new identity. Pair the terminal again."
    )
