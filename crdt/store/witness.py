"""Sees that a database server still has what it acknowledged to this process.

A server goes back under a hub that runs: a copy or a dump is put back, or a standby takes over that lagged
behind. Whoever goes on there numbers new facts like old ones. So every process of a hub has a row in the
database, named by the nonce of its marks, which are outside of it; each of its writes counts that row up from
where it left it, or is not done at all. And each compares the settlement's series: who finds the database put
back gives it a new one, so all other processes stop too, whether they lost something or not.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from sqlalchemy import BigInteger, Connection, bindparam, exists, select

from crdt.errors import StoreFailed
from crdt.facts import ReplicaId
from crdt.settlement import SERIES_BYTES
from crdt.store.hub_schema import HUB, PROCESS
from crdt.store.marks import Marks
from crdt.store.statement import Statement
from crdt.store.store import Shared

_SERIES: Final = Statement(select(HUB.c.series))
_RETIRED: Final = Statement(select(HUB.c.retired))
_NONCES: Final = Statement(select(PROCESS.c.nonce))
_NAME: Final = Statement(PROCESS.update().values(nonce=bindparam("new")))
_HAS: Final = Statement(
    select(PROCESS.c.turn, PROCESS.c.series, select(HUB.c.series).scalar_subquery()).where(
        PROCESS.c.nonce == bindparam("nonce")
    )
)
_FORGET: Final = Statement(PROCESS.delete().where(PROCESS.c.nonce == bindparam("nonce")))
_ENTER: Final = Statement(
    PROCESS.insert().values(nonce=bindparam("nonce"), series=bindparam("series"), turn=0)
)
_COUNT: Final = Statement(
    PROCESS.update()
    .values(turn=bindparam("next", type_=BigInteger))
    .where(
        PROCESS.c.nonce == bindparam("nonce"),
        PROCESS.c.turn.between(bindparam("least"), bindparam("most")),
        exists().where(HUB.c.series == bindparam("series")),
    )
)


def nonce_to_compare(connection: Connection, marks: Marks, *, shared: bool) -> bytes | None:
    """The nonce that a start compares with its marks: this process's, where the database has it.

    None where nothing is to be compared: the database is new, or is shared and this process is.
    """
    nonces = [bytes(nonce) for (nonce,) in _NONCES.rows(connection)]
    mine = [nonce for nonce in nonces if nonce in marks.known]
    if shared and marks.fresh:
        return None
    return next(iter(mine or nonces), None)


def is_seen_to(connection: Connection, marks: Marks) -> bool:
    """Whether the database was found put back, and given another series, since this process last began."""
    rows = [row for nonce in marks.known if (row := _HAS.row(connection, nonce=nonce)) is not None]
    return any(began != now for _, began, now in rows)


def enter(connection: Connection, marks: Marks, *, shared: bool) -> None:
    """Within a write: this process begins, in place of what it was before; alone, if it does not share."""
    for nonce in marks.known if shared else [nonce for (nonce,) in _NONCES.rows(connection)]:
        _FORGET.run(connection, nonce=nonce)
    _ENTER.run(connection, nonce=marks.nonce, series=_SERIES.value(connection))


def tell_apart(connection: Connection, nonce: bytes) -> None:
    """In a backup of a ledger that one process has alone: no marks know this nonce, so whoever begins on the
    copy notices that it was put back, even if no fact was lost but a revocation."""
    _NAME.run(connection, new=nonce)


def disown(connection: Connection, replica: ReplicaId, series: bytes) -> None:
    """Within a write, in a database that was put back: the hub's own chain is not continued under this
    identity, and the settlement begins anew.

    Else a terminal half way through a load would go on after a cursor that means something else here, and a
    card's number might be given again.
    """
    connection.execute(HUB.update().values(retired=replica, series=series))


def retired(connection: Connection) -> bytes | None:
    """The identity of the hub's whose chain is not continued, the last one; None where there is none."""
    found: bytes | None = _RETIRED.value(connection)
    return found


class Witness:
    """One process's. The writer's thread asks it; `look` is for any thread."""

    def __init__(
        self,
        store: Shared,
        nonce: bytes,
        series: bytes,
        replica: ReplicaId,
        entropy: Callable[[int], bytes],
    ) -> None:
        """As the ledger has begun: `nonce` of its marks, `series`, and its own `replica`."""
        self._store = store
        self._nonce = nonce
        self._series = series
        self._replica = replica
        self._entropy = entropy
        self._durable = 0  # the last turn whose commit was acknowledged
        self._tried = 0  # the last one that may be durable
        self._looking: Future[bool] | None = None

    def check(self, connection: Connection) -> bool:
        """Within a write, before all else: whether the database is the one it was. If not, commit and stop.

        Raises StoreFailed while there is no ledger in it, as in the middle of putting a dump back.
        """
        counted = _COUNT.run(
            connection,
            next=self._tried + 1,
            nonce=self._nonce,
            least=self._durable,
            most=self._tried,
            series=self._series,
        )
        if counted:
            self._tried += 1
            return True
        series = _SERIES.value(connection)
        if series is None:
            raise StoreFailed("there is no ledger in it; is a copy being put back?")
        if series == self._series:  # nobody has found it put back before
            disown(connection, self._replica, self._entropy(SERIES_BYTES))
        return False

    def committed(self) -> None:
        """The write that was checked last is durable."""
        self._durable = self._tried

    def look(self) -> None:
        """See in the background whether the database was put back; where it seems so, a write makes sure."""
        if self._looking is not None and not self._looking.done():
            return
        durable = self._durable

        def is_behind(connection: Connection) -> bool:
            row = _HAS.row(connection, nonce=self._nonce)
            return row is None or row[0] < durable or row[2] != self._series

        self._looking = self._store.read(is_behind)
        self._looking.add_done_callback(self._looked)

    def _looked(self, looked: Future[bool]) -> None:
        if not looked.cancelled() and looked.exception() is None and looked.result():
            self._store.write(lambda _connection: None)
