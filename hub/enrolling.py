"""A terminal's identities as the registry enters them: paired, and renewed after its storage was put back.

Within the caller's transaction, in which the ledger enrols the author as well: both or neither.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, bindparam, func, select, update

from crdt.certificate import AuthorCertificate, Role
from crdt.errors import Revoked
from crdt.facts import ID_BYTES, ReplicaId, TerminalId
from crdt.store import copies, expectations, papers
from crdt.store.amending import Amendment
from crdt.store.blocks import NO_HEAD, heads_of
from crdt.store.expectations import NOTHING_EXPECTED
from hub import tables
from hub.authority import ClientCertificate
from hub.enrolled import not_forgotten
from hub.errors import RequestRefused
from hub.registry import MAX_TERMINALS, REVOKED, Client

MAX_FORMER = 400  # identities named in an answer: more than a terminal ever has, and they fit
MAX_APART_MS = 10 * 60_000  # of the clocks of several processes of one hub; a date at a start is hours off


class Ended(NamedTuple):
    """Pairings that have ended. `identities`: all that were given in them; `stopped`: whom that leaves none,
    the names of these terminals."""

    identities: AbstractSet[ReplicaId]
    stopped: Sequence[str]


NONE_ENDED: Final = Ended(frozenset(), ())


def enrol(
    connection: Connection,
    name: str,
    claimed: bytes,
    fresh: TerminalId,
    issue: Callable[[TerminalId], tuple[ReplicaId, ClientCertificate]],
    now_ms: int,
) -> TerminalId:
    """Enter a newly paired terminal, within the caller's transaction; returns its id.

    The name decides who it is: a known name is that terminal, paired anew. An id that the terminal brings
    along (`claimed`) is kept only when nobody here has it, for two bus computers started from one SD image
    both claim the same. Otherwise the id is `fresh`. `issue` makes the certificates for the id.
    """
    table = tables.terminal
    by_name = connection.execute(select(table.c.terminal).where(table.c.name == name)).scalar_one_or_none()
    terminal = TerminalId(by_name) if by_name is not None else _new_id(connection, claimed, fresh)
    replica, certificate = issue(terminal)
    _refuse_known_replica(connection, replica)
    _enter(connection, terminal, replica, replica, certificate, now_ms)
    values = {
        "name": name,
        "replica": replica,
        "paired_ms": now_ms,
        "revoked_ms": None,
        "recalled": False,
        "restored_ms": None,
        "renewed_ms": None,
    }
    if by_name is None:
        connection.execute(table.insert().values(terminal=terminal, **values))
    else:
        connection.execute(table.update().where(table.c.terminal == terminal).values(values))
    return terminal


def renew(
    connection: Connection,
    client: Client,
    replica: ReplicaId,
    certificate: ClientCertificate,
    now_ms: int,
) -> None:
    """Enter another identity of a terminal, within the caller's transaction; again for the same one is fine.

    RequestRefused when the key is of another terminal or this one's present one, Revoked when it was revoked.
    """
    table = tables.client_certificate
    mine = tables.terminal.c.terminal == client.terminal
    paired_as = connection.execute(_paired_as(client.replica)).scalar()
    if connection.execute(select(tables.terminal.c.revoked_ms).where(mine)).scalar_one() is not None:
        raise Revoked(f"The terminal {client.name} was revoked.")
    known = connection.execute(select(table.c.terminal).where(table.c.replica == replica)).scalars().first()
    if known is not None and (known != client.terminal or replica == client.replica):
        raise key_in_use()
    _enter(connection, client.terminal, replica, paired_as, certificate, now_ms)
    connection.execute(tables.terminal.update().where(mine).values(replica=replica, renewed_ms=now_ms))


def since_pairing(connection: Connection, replica: ReplicaId) -> set[ReplicaId]:
    """The identities that a terminal was given in the pairing that this one is from, and since."""
    table = tables.client_certificate
    query = select(table.c.replica).where(table.c.paired_as.in_(_paired_as(replica)))
    return {ReplicaId(found) for found in connection.execute(query).scalars()}


def end_pairings(connection: Connection, revoked: Collection[ReplicaId], now_ms: int) -> Ended:
    """Let in none of the certificates of the pairings that these identities are from: the hub had revoked
    them before it was put back. Whoever an operator has paired anew since goes on.

    Within a write, after which the registry has to `forget`.
    """
    if not revoked:
        return NONE_ENDED
    table, terminal = tables.client_certificate, tables.terminal
    # Looked through once: nothing finds a replica quicker, and a list may have thousands.
    every = connection.execute(select(table.c.serial, table.c.replica, table.c.paired_as)).all()
    pairings = {row.paired_as for row in every if row.replica in revoked}
    ended = {row.serial: ReplicaId(row.replica) for row in every if row.paired_as in pairings}
    identities = set(ended.values())
    good = select(terminal.c.terminal, terminal.c.name, terminal.c.replica)
    good = good.where(terminal.c.revoked_ms.is_(None))
    stopped = [row for row in connection.execute(good) if row.replica in identities]
    if ended:
        stop = update(table).where(table.c.serial == bindparam("which")).values(stopped=REVOKED)
        connection.execute(stop, [{"which": serial} for serial in ended])
    if stopped:
        stop = update(terminal).where(terminal.c.terminal == bindparam("which"))
        stop = stop.values(revoked_ms=now_ms, recalled=True)
        connection.execute(stop, [{"which": row.terminal} for row in stopped])
    return Ended(identities, sorted(row.name for row in stopped))


def renewed(connection: Connection, replica: ReplicaId, most: int, now_ms: int) -> list[int]:
    """When a terminal took another identity in the pairing that this one is from: ms, the newest first, at
    most so many of them, and only what came since the hub's clock was last behind. See `in_step`."""
    table = tables.client_certificate
    paired_as = table.c.paired_as.in_(_paired_as(replica))
    numbers = select(func.min(table.c.number)).where(paired_as, table.c.replica != table.c.paired_as)
    query = select(table.c.issued_ms).where(paired_as, table.c.number.in_(numbers.group_by(table.c.replica)))
    query = query.order_by(table.c.number.desc()).limit(most)
    return in_step(connection.execute(query).scalars(), now_ms)


def in_step(newest_first: Iterable[int], now_ms: int) -> list[int]:
    """Those of these times, in ms, that are no later than what came after them, up to the first that is.

    There the clock was set back, or the hub was started without a battery, which begins at one date again and
    again: how long ago anything before it was, nobody can tell. Later by MAX_APART_MS is no such step.
    """
    found: list[int] = []
    earliest_ms = now_ms
    for at_ms in newest_first:
        if at_ms > earliest_ms + MAX_APART_MS:
            break
        earliest_ms = min(earliest_ms, at_ms)
        found.append(at_ms)
    return found


def unpaired(connection: Connection, replicas: Collection[ReplicaId]) -> set[ReplicaId]:
    """Those of these identities that no pairing or renewal gave that is known here: the hub was put back."""
    table = tables.client_certificate
    known = connection.execute(select(table.c.replica).where(table.c.replica.in_(replicas))).scalars()
    return {*replicas} - {ReplicaId(found) for found in known}


def enter_forgotten(
    amendment: Amendment, terminal: TerminalId, certificate: AuthorCertificate | None
) -> set[ReplicaId]:
    """An identity of this terminal that this hub gave before it was put back: entered again, to end.

    Or of another that was paired with its storage, as it may have been itself under another name; where the
    hub has forgotten all of such a one, there is nothing to end. An identity of another that the hub has not
    forgotten is left to `unsaid`: anybody has its certificate, and who brought all of it goes on.
    RequestRefused for anybody else's; raises ForeignFleet or BadSignature for one that the fleet never gave.
    """
    if certificate is None:
        return set()
    theirs = copies.with_copies(copies.pairs(amendment.connection), [terminal])
    known = {author.terminal for author in amendment.authors().values()} - theirs
    if certificate.role is not Role.TERMINAL or certificate.terminal in known:
        raise not_forgotten()
    if certificate.terminal not in theirs:
        return set()
    amendment.enrol(certificate)
    named = {certificate.replica}
    return named if certificate.terminal == terminal else unpaired(amendment.connection, named)


def end_unused(connection: Connection, replicas: Collection[ReplicaId]) -> None:
    """Wait for nothing of those of these identities that a renewal gave and that never came: its answer was
    lost. They wrote nothing: a renewed terminal compares with the hub, as the new identity, before it writes.

    Not of those that may have come without this database knowing: see `doubt_unused`.
    """
    table = tables.client_certificate
    used = select(table.c.replica).where(table.c.used | table.c.doubted)
    query = select(table.c.replica).where(
        table.c.replica.in_(replicas), table.c.paired_as != table.c.replica, table.c.replica.not_in(used)
    )
    expectations.end(connection, [ReplicaId(found) for found in connection.execute(query).scalars()])


def doubt_unused(connection: Connection) -> None:
    """The hub was put back: what has not come here yet may have come after the copy was made, and written."""
    table = tables.client_certificate
    connection.execute(table.update().where(table.c.used.is_(False)).values(doubted=True))


def former(
    connection: Connection, authors: Mapping[ReplicaId, AuthorCertificate], terminal: TerminalId
) -> list[ReplicaId]:
    """The identities of a restored terminal, for its comparison: whichever of them may have written again
    what the old copy of its storage has open. And those of others that had such copies; its own are first."""
    those = copies.with_copies(copies.pairs(connection), [terminal])
    found = [
        (author.terminal != terminal, one) for one, author in authors.items() if author.terminal in those
    ]
    return [one for _, one in sorted(found)][:MAX_FORMER]


def unsaid(
    connection: Connection,
    authors: Mapping[ReplicaId, AuthorCertificate],
    terminal: TerminalId,
    former: Collection[ReplicaId],
) -> set[ReplicaId]:
    """Those of these identities that have not brought all they had when they were paired: of terminals other
    than this, and of pairings of this one in which one was replaced, since a copy of its storage may go on as
    that.

    They have to compare anew with whoever is compared with what is here of them now: both may have open what
    a copy of one storage had.
    """
    copied = _copied(connection, terminal)
    others = [one for one in former if authors[one].terminal != terminal or one in copied]
    known, heads = expectations.read(connection, others), heads_of(connection, others)
    found = set()
    for one in others:
        expected = known.get(one, NOTHING_EXPECTED)
        brought = expected.heard_ms and expected.seq <= heads.get(one, NO_HEAD).seq
        if not (brought or expected.ended):
            found.add(one)
    return found


def _copied(connection: Connection, terminal: TerminalId) -> set[ReplicaId]:
    """The identities of a terminal that were given in pairings in which one of them was replaced."""
    table, replaced = tables.client_certificate, papers.revocations(connection).replaced
    query = select(table.c.replica, table.c.paired_as).where(table.c.terminal == terminal)
    given = connection.execute(query).all()
    pairings = {row.paired_as for row in given if row.replica in replaced}
    return {ReplicaId(row.replica) for row in given if row.paired_as in pairings}


def key_in_use() -> RequestRefused:
    """The refusal of a key that somebody has: each identity has a key of its own."""
    return RequestRefused("key_in_use", "A terminal was paired with this key before. Pair with a new key.")


def _enter(
    connection: Connection,
    terminal: TerminalId,
    replica: ReplicaId,
    paired_as: bytes | None,
    certificate: ClientCertificate,
    now_ms: int,
) -> None:
    """One more identity of a terminal; `paired_as`: the one that its pairing began with."""
    connection.execute(
        tables.client_certificate.insert().values(
            serial=certificate.serial,
            terminal=terminal,
            replica=replica,
            paired_as=paired_as,
            number=_next_number(connection, terminal),
            issued_ms=now_ms,
        )
    )


def _next_number(connection: Connection, terminal: TerminalId) -> int:
    """Of the terminal's next certificate: the newer has the larger, however the clock was set."""
    table = tables.client_certificate
    last = select(func.coalesce(func.max(table.c.number), 0)).where(table.c.terminal == terminal)
    return int(connection.execute(last).scalar_one()) + 1


def _paired_as(replica: ReplicaId) -> Select[Any]:
    table = tables.client_certificate
    return select(table.c.paired_as).where(table.c.replica == replica)


def _new_id(connection: Connection, claimed: bytes, fresh: TerminalId) -> TerminalId:
    table = tables.terminal
    if connection.execute(select(func.count()).select_from(table)).scalar_one() >= MAX_TERMINALS:
        raise RequestRefused("full", f"This hub has {MAX_TERMINALS} terminals and takes no more.")
    if len(claimed) != ID_BYTES:
        return fresh
    taken = connection.execute(select(table.c.name).where(table.c.terminal == claimed)).first()
    return fresh if taken else TerminalId(claimed)


def _refuse_known_replica(connection: Connection, replica: ReplicaId) -> None:
    """A key is certified once: pairing makes a new replica, or two terminals would write as one."""
    table = tables.client_certificate
    if connection.execute(select(table.c.serial).where(table.c.replica == replica)).first():
        raise key_in_use()
