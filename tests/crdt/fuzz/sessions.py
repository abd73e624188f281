"""Session bytes and courier files: mutants framed anew, with mutants inside, fed in pieces of any size."""

from functools import cache
from hashlib import sha256
from typing import Final

from crdt.courier import CHECKSUM_BYTES, MAX_COURIER_HEADS, CourierReader, CourierWriter
from crdt.facts import ReplicaId
from crdt.frames import (
    FRAME_HEADER_BYTES,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Heads,
    Hello,
    Message,
    PageFrame,
    Refusal,
    ShortBlockFrame,
    encode_frame,
)
from crdt.frontier import MAX_FRONTIER, Head
from crdt.ledger import Ledger
from crdt.session import Ended, Event, Refused, Session, State
from crdt.terminal_status import Status
from tests.crdt.fuzz.blocks import AUTHOR, CHAIN, mutant_block, mutant_short
from tests.crdt.fuzz.mutate import Mutator
from tests.crdt.fuzz.sealed import STRICT, mutant_body, mutant_certificate, mutant_document, mutant_page
from tests.crdt.fuzz.target import Target
from tests.crdt.test_session import EXAMPLES
from tests.crdt.world import CERTIFICATES, FLEET, FLEET_KEY, HUB_KEY

FRONTIER: Final = {AUTHOR.key.replica: CHAIN[-1].head}
HELLO: Final = encode_frame(Hello(FLEET, AUTHOR.key.replica, FRONTIER))
_STATUS: Final = Status({"held": 5, "name": "bus 12", "at": [1.5, None, True, {"a": -(2**63)}]}).body()
_SEALED: Final = (CertificateFrame, BlockFrame, PageFrame, DocumentFrame, ShortBlockFrame)
_PIECE_BYTES: Final = 64 * 1024  # at a time, as terminal and hub read a file
_TWO_READERS_BYTES: Final = 32 * 1024 * 1024  # each with as many heads as a file may have
_EXACT: Final = (*STRICT, *_SEALED, Hello)  # those whose bytes follow from their values


def frame(kind: int, body: bytes) -> bytes:
    """A frame of any type and body."""
    return bytes([kind]) + len(body).to_bytes(4, "big") + body


def mutant_frame(mutator: Mutator) -> bytes:
    """A frame with a mutant in it, framed right."""
    match mutator.source.randrange(10):
        case 0:
            return frame(BlockFrame.TYPE, mutant_block(mutator))
        case 1:
            return frame(ShortBlockFrame.TYPE, mutant_short(mutator))
        case 2:
            return frame(CertificateFrame.TYPE, mutant_certificate(mutator))
        case 3:
            return frame(PageFrame.TYPE, mutant_page(mutator))
        case 4:
            return frame(DocumentFrame.TYPE, mutant_document(mutator))
        case 5:
            return frame(Status.TYPE, mutator.mutated(_STATUS))
        case 6:
            return frame(Hello.TYPE, mutator.mutated(HELLO[FRAME_HEADER_BYTES:]))
        case 7:
            return frame(Refusal.TYPE, mutator.mutated(b"\x07" + "bitte höher".encode()))
        case _:
            body = mutant_body(mutator)
            return frame(body[0], body[1:])


def mutant_session(mutator: Mutator) -> bytes:
    """A row of frames: good ones, mutants, in any order, now and then damaged as a whole."""
    frames = [HELLO] if not mutator.chance(12) else []
    for _ in range(mutator.source.randrange(8)):
        frames += [encode_frame(mutator.pick(_GOOD)) if mutator.chance(2) else mutant_frame(mutator)]
    if mutator.chance(8):
        mutator.source.shuffle(frames)
    data = b"".join(frames)
    return mutator.mutated(data) if mutator.chance(4) else data


_GOOD: Final[list[Message]] = [message for kind, message in EXAMPLES.items() if kind is not Hello]


def fed(reader: Session | CourierReader, data: bytes, size: int) -> list[Event]:
    """All events of the data in pieces of one size, and of its end."""
    events = [
        event for at in range(0, len(data), size) for event in reader.receive_data(data[at : at + size])
    ]
    return events + reader.receive_eof()


def check_session(data: bytes) -> bool:
    """One end, the same events however the bytes are cut, and messages that are their only writing."""
    session = Session(FLEET, HUB_KEY.replica)
    events = fed(session, data, max(1, len(data)))
    check_events(events)
    assert session.state in (State.REFUSED, State.CLOSED)
    assert session.receive_data(HELLO) == session.receive_eof() == []
    for size in (1, 3, 64):
        if len(data) // size < 2000:
            assert fed(Session(FLEET, HUB_KEY.replica), data, size) == events
    exact = b"".join(encode_frame(event) for event in events if isinstance(event, _EXACT))
    if all(isinstance(event, (*_EXACT, Ended, Refused)) for event in events):
        assert data.startswith(exact)
    return isinstance(events[-1], Ended)


def check_events(events: list[Event]) -> None:
    """One end; whatever is not byte for byte what was sent says the same again."""
    assert [event for event in events if isinstance(event, Ended | Refused)] == events[-1:]
    for event in events:
        if isinstance(event, Status | Refusal):
            again = type(event).from_body(event.body())
            assert again == event or isinstance(event, Refusal)
        elif isinstance(event, Refused):
            encode_frame(event.answer())


def mutant_courier(mutator: Mutator) -> bytes:
    """A courier file of good blocks and mutants, damaged or not."""
    writer = CourierWriter(FLEET, AUTHOR.key.replica)
    parts = [writer.beginning(FRONTIER)]
    parts += [writer.message(CertificateFrame(each.encode())) for each in CERTIFICATES]
    if mutator.chance(3):
        parts.append(frame(DocumentFrame.TYPE, mutant_document(mutator)))
    for block in CHAIN:
        parts.append(writer.message(BlockFrame(block.raw)))
        if mutator.chance(3):
            parts.append(frame(BlockFrame.TYPE, mutant_block(mutator)))
        if mutator.chance(12):
            parts.append(mutant_frame(mutator))
    parts.append(mutant_heads(mutator) if mutator.chance(40) else writer.end(FRONTIER)[:-CHECKSUM_BYTES])
    if mutator.chance(8):
        mutator.source.shuffle(parts)
    data = b"".join(parts)
    data += sha256(data).digest()
    return mutator.mutated(data) if mutator.chance(3) else data


def mutant_heads(mutator: Mutator) -> bytes:
    """Full messages of HEADS, more than there may be, in order or not; and one that ends them."""
    full = _full_heads()
    chosen = full[: mutator.source.randrange(len(full))]
    if mutator.chance(4):
        mutator.source.shuffle(chosen)
    return b"".join([*chosen, encode_frame(Heads({}))])


@cache
def _full_heads() -> list[bytes]:
    heads = [
        (ReplicaId(at.to_bytes(16, "big")), Head(1, bytes(32)))
        for at in range(3 * MAX_COURIER_HEADS * MAX_FRONTIER)
    ]
    return [
        encode_frame(Heads(dict(heads[at : at + MAX_FRONTIER]))) for at in range(0, len(heads), MAX_FRONTIER)
    ]


def check_courier(data: bytes) -> bool:
    """One end, the same events however it is cut; certificates, documents and blocks alone, then heads in
    order and not more than there may be; and what merges balances."""
    reader = CourierReader(FLEET, HUB_KEY.replica)
    events = fed(reader, data, _PIECE_BYTES)
    check_events(events)
    assert reader.receive_data(data) == reader.receive_eof() == []
    assert fed(CourierReader(FLEET, HUB_KEY.replica), data, max(97, len(data) // 2000)) == events
    assert all(
        isinstance(each, Hello | CertificateFrame | DocumentFrame | BlockFrame | Heads | Ended | Refused)
        for each in events
    )
    assert isinstance(events[-1], Refused) or reader.heads is not None
    heads = [event.frontier for event in events if isinstance(event, Heads)]
    assert len(heads) <= MAX_COURIER_HEADS
    assert [each for part in heads for each in part] == sorted(reader.heads or {})
    ledger = Ledger(FLEET_KEY.public_key)
    blocks = [event.raw for event in events if isinstance(event, BlockFrame)]
    ledger.merge(blocks, CERTIFICATES)
    before = ledger.digest()
    ledger.merge(blocks)
    assert ledger.digest() == before
    assert ledger.books().balance
    return isinstance(events[-1], Ended)


TARGETS: Final = [
    Target("session", mutant_session, check_session, weight=12),
    Target("courier", mutant_courier, check_courier, weight=4, peak_bytes=_TWO_READERS_BYTES),
]
