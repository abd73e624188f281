"""What a hub's ledger is told of chains: by the authors themselves, and by those who met them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from sqlalchemy import Connection

from crdt.facts import ReplicaId
from crdt.frontier import Frontier, Head
from crdt.settlement import Page
from crdt.store.asking import LedgerReader
from crdt.store.blocks import NO_HEAD
from crdt.store.editions import PagePull
from crdt.store.expectations import NOWHERE
from crdt.store.hub_parts import HubParts
from crdt.store.marks import Marks
from crdt.store.standing import HubStanding, arrival


class HearingLedger(LedgerReader):
    """One that answers authors that come, and notes what they say of what they and others have written."""

    _parts: HubParts
    _marks: Marks | None  # None: there are none beside the database

    def arrival(self, replica: ReplicaId, frontier: Frontier) -> Future[tuple[HubStanding, Frontier]]:
        """What this hub thinks of an author that names these heads, and its own heads of all of them.

        Of itself it has no chain where it names none.
        """
        return self._database.read(self._arriving(replica, frontier))

    def arrival_and_page(
        self, replica: ReplicaId, frontier: Frontier, pull: PagePull
    ) -> Future[tuple[tuple[HubStanding, Frontier], Page]]:
        """`arrival` and `page` of an author, quicker than one after the other."""
        arriving, paging = self._arriving(replica, frontier), self._paging(pull)
        return self._database.read(lambda connection: (arriving(connection), paging(connection)))

    def expect(
        self,
        frontier: Frontier,
        source: str,
        at_ms: int,
        by: ReplicaId | None = None,
        former: Frontier = NOWHERE,
        said_ms: int | None = None,
    ) -> Future[None]:
        """Note how far chains go by the word of their authors' own terminals. Nothing new costs nothing.

        `source`: a short text for people. `by`: the author that speaks, known from TLS: it has named
        everything it has, and what it writes later is dated after `said_ms`, or else `at_ms`. `former`: the
        heads of the identities that wrote to its storage before. Authors that are not enrolled are left out.
        """
        return self._parts.expectations.expect(frontier, source, at_ms, by, former, said_ms)

    def see_time(self) -> Future[None]:
        """Look at the clock: what was noted of a time that has not come proves no day when it comes.

        To be called every so often: a clock that was ahead has noted such, and nothing else may show before
        the day's end that it was set right.
        """
        return self._parts.intake.see_time()

    def claim(self, frontier: Frontier, by: ReplicaId, source: str, at_ms: int) -> Future[None]:
        """Note how far chains of others go by the mere word of an author's terminal: told, and no day waits
        for it, nor anybody once that is revoked."""
        return self._parts.claims.claim(frontier, by, source, at_ms)

    def give_up(self, replica: ReplicaId) -> Future[bool]:
        """Wait no longer for what an author has written and nobody brings; an operator decides.

        Of a former identity also for what nobody can tell. False when nobody waits for anything of it.
        """
        return self._parts.expectations.give_up(replica)

    # ---- Within ----

    def _arriving(
        self, replica: ReplicaId, frontier: Frontier
    ) -> Callable[[Connection], tuple[HubStanding, Frontier]]:
        mark = self._mark(replica)
        return lambda connection: arrival(connection, replica, frontier, mark)

    def _mark(self, replica: ReplicaId) -> Head:
        return NO_HEAD if self._marks is None else self._marks.head(replica) or NO_HEAD
