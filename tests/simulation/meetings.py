"""How blocks travel without a network to the hub: from bus to bus, and on a courier's stick."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, cast

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.courier import CourierReader, CourierWriter
from crdt.errors import RefusalCode
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame, Message, Want
from crdt.revocations import REVOKED_DOCUMENT
from edge import revoked_list
from tests.simulation.authors import HOME, author
from tests.simulation.buses import Bus
from tests.simulation.hubs import Hub
from tests.simulation.oracle import expect

MAX_BYTES = 1 << 20


def meet(giver: Bus, taker: Bus) -> int:
    """One door tells the other who was replaced or revoked, what it holds and what it has not sealed; how
    many blocks were new."""
    _pass_list(giver, taker)
    after = {replica: head.seq for replica, head in taker.ledger.frontier().items()}
    frames = giver.ledger.answer(Want(after, True), MAX_BYTES)
    report = taker.ledger.merge(blocks_in(frames), [*certificates_in(frames), giver.author.certificate])
    cut_offs, pruned = taker.ledger.revocations().cut_offs, giver.ledger.pruned_until()
    for refused in report.refused:
        block = parse(refused.raw)
        replica = block.header.replica
        revoked = refused.error.code is RefusalCode.REVOKED and block.last_seq > cut_offs[replica]
        gap = refused.error.code is RefusalCode.CHAIN_BROKEN and replica in pruned
        expect(revoked or gap, f"{taker.name} refused what {giver.name} holds: {refused.error!r}")
    if giver.replica in cut_offs:
        taker.beliefs.forget(giver.replica)
    else:
        taker.beliefs.believe(giver)
    return len(report.added)


def hear_list(hub: Hub, taker: Bus) -> None:
    """A stick from the hub: who was replaced or revoked."""
    listed = hub.ledger.document(REVOKED_DOCUMENT).result()
    _take_list(revoked_list.papers(listed, hub.ledger.authors()), taker)


def _pass_list(giver: Bus, taker: Bus) -> None:
    _take_list(revoked_list.newer_than(giver.ledger, revoked_list.version_of(taker.ledger)), taker)


def _take_list(papers: Sequence[Message], taker: Bus) -> None:
    for paper in papers:
        if isinstance(paper, DocumentFrame):
            revoked_list.take(cast(Any, taker.identity), taker.ledger, paper.raw, certificates_in(papers))


def exported(bus: Bus) -> bytes:
    """A courier file of all that the terminal holds."""
    frontier = bus.ledger.frontier()
    writer = CourierWriter(HOME.id, bus.replica)
    parts = [writer.beginning(frontier)]
    parts += [writer.message(paper) for paper in revoked_list.newer_than(bus.ledger, 0)]
    parts += [writer.message(frame) for frame in bus.ledger.answer(Want({}, True), MAX_BYTES)]
    return b"".join([*parts, writer.end(frontier)])


def imported(hub: Hub, file: bytes) -> int:
    """Bring a courier file to the hub, whole or not; how many blocks were new. Raises PowerCut."""
    reader = CourierReader(HOME.id, hub.replica)
    events = [*reader.receive_data(file), *reader.receive_eof()]
    frames = [event for event in events if isinstance(event, BlockFrame | CertificateFrame)]
    hub.ledger.merge([], certificates_in(frames)).result()
    for event in events:
        if isinstance(event, DocumentFrame):
            hub.take_list(event.raw)
    report = hub.ledger.merge(blocks_in(frames)).result()
    return len(report.added)


def bring_lost(hub: Hub, bus: Bus) -> None:
    """Somebody finds what the storage that was taken out had sealed: its identity has ended. Where the
    terminal went on with its numbers, unaware, it contradicts that.

    A hub that was put back may have forgotten that, and who the next one was, which has taken over. A real
    one does not let that one in then, and ends both; here it does, so such blocks are not brought.
    """
    position = hub.disk.rows("SELECT position FROM hub")
    lost = bus.storage.lost
    raws = [raw for raw in lost if not hub.put_back or parse(raw).header.replica in hub.cut_offs]
    given = range(len(bus.replicas) + len(bus.forgotten))
    report = hub.ledger.merge(raws, [author(bus.number, number).certificate for number in given])
    refused = {one.error.code for one in report.result().refused}
    expected = {RefusalCode.REVOKED, RefusalCode.FORK_DETECTED}
    expect(refused <= expected, f"what {bus.name} had lost was refused with {refused}")
    expect(hub.disk.rows("SELECT position FROM hub") == position, f"what {bus.name} had lost counts")


def cut_short(file: bytes, random: Random) -> bytes:
    """What is left of a file on a stick that was pulled out."""
    return file[: random.randrange(len(file))]


def blocks_in(frames: Iterable[Message]) -> list[bytes]:
    """The blocks among them."""
    return [frame.raw for frame in frames if isinstance(frame, BlockFrame)]


def certificates_in(frames: Iterable[Message]) -> list[AuthorCertificate]:
    """The certificates among them."""
    return [AuthorCertificate.decode(frame.raw) for frame in frames if isinstance(frame, CertificateFrame)]
