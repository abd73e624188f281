"""What tests of blocks and taps of other terminals have in common."""

from collections.abc import Sequence

from crdt.block import Block, parse
from crdt.certificate import AuthorCertificate
from crdt.cursor import Cursor, beginning
from crdt.documents import SignedDocument
from crdt.facts import Draft, Kind, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, Want
from crdt.frontier import Head
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import CardRow, Page, seal_page
from tests.crdt import world
from tests.crdt.store.fleet import OpenTerminal, card

FARE = Draft(Kind.FARE, -250)
EVERYTHING = 1 << 24


def blocks(terminal: OpenTerminal, replica: ReplicaId | None = None, after: int = 0) -> list[Block]:
    return [parse(raw) for raw in terminal.ledger.blocks_after(after, EVERYTHING, replica)]


def give(giver: OpenTerminal, taker: OpenTerminal, max_bytes: int = EVERYTHING) -> int:
    """The taker asks for everything and gets one answer; how many blocks were new."""
    frontier = taker.ledger.frontier()
    want = Want({replica: head.seq for replica, head in frontier.items()}, others=True)
    frames = giver.ledger.answer(want, max_bytes)
    report = taker.ledger.merge(*taken_apart(frames))
    assert not report.refused
    return len(report.added)


def taken_apart(
    frames: Sequence[CertificateFrame | BlockFrame],
) -> tuple[list[bytes], list[AuthorCertificate]]:
    certificates = [frame.raw for frame in frames if isinstance(frame, CertificateFrame)]
    raws = [frame.raw for frame in frames if isinstance(frame, BlockFrame)]
    return raws, [AuthorCertificate.decode(raw) for raw in certificates]


def page(heads: dict[ReplicaId, Head], rows: list[CardRow], position: int, base: int = 0) -> Page:
    after = beginning(base)
    last = Cursor(position, replica=max(heads)) if heads else after
    until = Cursor(position, rows[-1].card) if rows else last
    return seal_page(
        world.HUB_KEY, world.FLEET, b"S" * 16, base, after, until, rows, position, heads, final=True
    )


def ride(terminal: OpenTerminal, count: int, first: int = 0) -> None:
    """So many blocks of one fare each."""
    for number in range(first, first + count):
        terminal.write(card(number % 4), [FARE], at_ms=1_000 + number)
        terminal.ledger.seal()


def believe(giver: OpenTerminal, taker: OpenTerminal) -> bool:
    return taker.ledger.believe(giver.ledger.replica, giver.ledger.open_segment())


def revoked(version: int, cut_offs: dict[ReplicaId, int]) -> SignedDocument:
    return listed(version, Revocations(cut_offs))


def listed(version: int, revocations: Revocations) -> SignedDocument:
    return SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, version, revocations.encode())
