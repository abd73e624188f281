"""A hub that was put back from a backup: a new identity for what it books, and what it has to say about it.

Everything that was booked comes back from the terminals by itself, what the hub wrote included: they keep it.
What else was done here since the backup (revocations, pairings, fares) is not in it. Numbers of its own chain
must not be given twice, so it goes on under a new key; the former chain goes on where the backup ended.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from crdt.facts import ReplicaId
from crdt.pairing import Entropy
from crdt.revocations import REVOKED_DOCUMENT
from crdt.signing import SEED_BYTES
from crdt.store import papers
from crdt.store.store import Store
from hub import enrolling, tables

log = logging.getLogger(__name__)

# Terminals may have newer versions of the hub's documents than the backup. The next version of each is this
# much higher, and randomly so, lest two restorations of one backup give one number to two things. A terminal
# that has a higher one all the same says so when it asks; see hub/recalling.py.
FLOOR_BYTES = 4


@dataclass(frozen=True, slots=True)
class Restoration:
    """That the hub was put back once."""

    former: ReplicaId  # whose chain it must not go on with
    at_ms: int
    version_floor: int  # of documents from then on
    seen: bool  # an operator took the notice away


def take_new_key(
    database: Store,
    former: ReplicaId,
    put_key: Callable[[bytes], bytes],
    now_ms: int,
    entropy: Entropy = os.urandom,
) -> bytes:
    """Note that `former` must not write any more, then keep a new key (a seed) with `put_key`.

    Returns the seed that `put_key` says is kept, which another process may have made. Waits. A power cut
    between the two leaves the former key, and the next start begins here again.
    """
    row: dict[str, object] = {
        "former": former,
        "at_ms": now_ms,
        "version_floor": (1 << 8 * FLOOR_BYTES) + int.from_bytes(entropy(FLOOR_BYTES), "big"),
        "seen": False,
    }
    table = tables.restored_hub

    def note(connection: Connection) -> None:
        enrolling.doubt_unused(connection)
        note_list(connection, former, papers.document_version(connection, REVOKED_DOCUMENT))
        connection.execute(table.delete().where(table.c.former == former))
        connection.execute(table.insert().values(row))

    database.write_and_wait(note)
    seed = put_key(entropy(SEED_BYTES))
    log.error(
        "This hub's ledger was put back from a backup. Taps and top-ups come back from the terminals by "
        "themselves; the dashboard says what is still missing. Revocations, pairings and fares made here "
        "since the backup are not in it: look through them and make them again."
    )
    return seed


def last(connection: Connection) -> Restoration | None:
    """The last time it was put back."""
    row = connection.execute(select(tables.restored_hub).order_by(tables.restored_hub.c.at_ms.desc())).first()
    if row is None:
        return None
    return Restoration(ReplicaId(row.former), row.at_ms, row.version_floor, row.seen)


def version_floor(connection: Connection) -> int:
    """The lowest version that a changed document may have."""
    query = select(func.max(tables.restored_hub.c.version_floor))
    return int(connection.execute(query).scalar_one() or 0)


def list_known(connection: Connection, signer: ReplicaId) -> int:
    """Up to which version the hub's list of revocations was made with what another identity of it said there:
    it was in the backup, or was joined since. 0 for nothing.

    An identity of which nothing is known here is from after the backup.
    """
    table = tables.known_list
    query = select(table.c.version).where(table.c.signer == signer)
    return int(connection.execute(query).scalar_one_or_none() or 0)


def note_list(connection: Connection, signer: ReplicaId, version: int) -> None:
    """The hub's list is made with this version of another identity's."""
    table = tables.known_list
    connection.execute(table.delete().where(table.c.signer == signer))
    connection.execute(table.insert().values(signer=signer, version=version))


def take_away(connection: Connection) -> None:
    """An operator has read the notice."""
    connection.execute(tables.restored_hub.update().values(seen=True))
