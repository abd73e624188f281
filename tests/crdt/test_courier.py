"""Courier files: every piece of any file is taken or refused, never raised (invariants 2, 4 and 8)."""

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt.block import MAX_BLOCK_BYTES, Block
from crdt.courier import (
    CHECKSUM_BYTES,
    MAGIC,
    MAX_COURIER_AUTHORS,
    CourierReader,
    CourierWriter,
    lacks_room,
)
from crdt.documents import SignedDocument
from crdt.errors import MisuseError, RefusalCode
from crdt.facts import FleetId, ReplicaId
from crdt.frames import (
    MAX_EXCHANGE_BYTES,
    MAX_FRAME_BYTES,
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Heads,
    Hello,
    ShortBlockFrame,
    Want,
    encode_frame,
)
from crdt.frontier import MAX_FRONTIER, Head, parts
from crdt.ledger import Ledger
from crdt.open_segment import OpenSegment
from crdt.pull import Pull
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.session import Ended, Event, Refused
from crdt.terminal_status import Status
from tests.crdt.vectors import deltas
from tests.crdt.world import CERTIFICATES, FLEET, FLEET_KEY, HUB_KEY, TERMINALS, chains

EXPORTER = TERMINALS[0].key.replica


def written(blocks: Iterable[Block], fleet: FleetId = FLEET) -> list[bytes]:
    """A courier file of these blocks: its messages one by one, the beginning first."""
    blocks = list(blocks)
    ledger = Ledger(FLEET_KEY.public_key)
    ledger.merge([block.raw for block in blocks], CERTIFICATES)
    writer = CourierWriter(fleet, EXPORTER)
    parts = [writer.beginning(ledger.frontier)]
    for replica, certificate in sorted(ledger.certificates.items()):
        parts.append(writer.message(CertificateFrame(certificate.encode())))
        parts += [writer.message(BlockFrame(raw)) for raw in ledger.blocks_after(replica, 0)]
    return [*parts, writer.end(ledger.frontier)]


def reader() -> CourierReader:
    return CourierReader(FLEET, HUB_KEY.replica)


def read(data: bytes, sizes: Iterable[int] = ()) -> tuple[CourierReader, list[Event]]:
    one, at, events = reader(), 0, []
    for size in sizes:
        events += one.receive_data(data[at : at + size])
        at += size
    events += one.receive_data(data[at:])
    return one, events + one.receive_eof()


def heads_of(count: int) -> dict[ReplicaId, Head]:
    """Of so many authors, by id."""
    return {ReplicaId(at.to_bytes(16, "big")): Head(at + 1, bytes(32)) for at in range(count)}


def imported(events: Iterable[Event], ledger: Ledger | None = None) -> Ledger:
    """A ledger after the blocks among the events; every certificate is known to it."""
    ledger = ledger or Ledger(FLEET_KEY.public_key)
    report = ledger.merge([event.raw for event in events if isinstance(event, BlockFrame)], CERTIFICATES)
    assert not report.refused
    return ledger


BLOCKS = TERMINALS[0].blocks(
    [
        type(delta)(EXPORTER, delta.seq, delta.card, delta.kind, delta.amount_minor, delta.at_ms)
        for delta in deltas()
    ],
    [2, 2],
)
PARTS = written(BLOCKS)
FILE = b"".join(PARTS)
HEADS = {EXPORTER: BLOCKS[-1].head}


@given(chains(), st.lists(st.integers(0, 400), max_size=20))
def test_a_file_read_in_any_pieces_brings_the_whole_ledger(blocks: list[Block], sizes: list[int]) -> None:
    one, events = read(b"".join(written(blocks)), sizes)
    assert isinstance(events[0], Hello)
    assert isinstance(events[-2], Heads)
    assert events[-1] == Ended()
    ledger = imported(events)
    assert ledger.frontier == one.heads == events[0].frontier
    assert {block.raw for block in blocks} == {event.raw for event in events if isinstance(event, BlockFrame)}


@given(chains())
def test_importing_twice_changes_nothing(blocks: list[Block]) -> None:
    _, events = read(b"".join(written(blocks)))
    ledger = imported(events)
    before = ledger.digest(), ledger.books()
    assert (imported(events, ledger).digest(), ledger.books()) == before


def test_a_file_cut_at_any_byte_is_refused_and_what_came_whole_is_good() -> None:
    """A stick pulled out too early, also between two blocks: said so, and the blocks before count."""
    borders = [len(b"".join(PARTS[: count + 1])) for count in range(len(PARTS))]
    for end in range(len(FILE)):
        one, events = read(FILE[:end])
        assert [type(event) for event in events].count(Refused) == 1
        assert isinstance(events[-1], Refused)
        assert len(events) - 1 == sum(border <= end for border in borders)
        assert one.heads is None
        imported(events)


@pytest.mark.parametrize("bit", range(8))
def test_every_damaged_byte_is_told_and_no_heads_are(bit: int) -> None:
    """Blocks prove themselves; what the file says of itself is believed when all is what was written."""
    for at in range(bit, len(FILE), 4):
        one, events = read(FILE[:at] + bytes([FILE[at] ^ 1 << bit]) + FILE[at + 1 :])
        assert isinstance(events[-1], Refused)
        assert one.heads is None
        assert not any(isinstance(event, Heads) for event in events)


@given(st.binary(max_size=300), st.integers(0, len(FILE)), st.lists(st.integers(0, 50), max_size=8))
@example(b"\0", len(FILE) - 1, [])
@example(FILE[-1:], len(FILE) - 1, [])
def test_garbage_gives_one_refusal_and_then_silence(garbage: bytes, begin: int, sizes: list[int]) -> None:
    """Nothing can be replaced unseen."""
    data = FILE[:begin] + garbage
    one, events = read(data, sizes)
    ends = [event for event in events if isinstance(event, Refused | Ended)]
    assert ends == events[-1:]
    assert (ends == [Ended()]) is (data == FILE)
    assert one.receive_data(FILE) == one.receive_eof() == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", RefusalCode.MALFORMED, id="an empty file"),
        pytest.param(b"PK\x03\x04" + bytes(100), RefusalCode.UNSUPPORTED, id="a zip file"),
        pytest.param(FILE[len(MAGIC) :], RefusalCode.UNSUPPORTED, id="a session and no file"),
        pytest.param(
            b"farebox courier v2\n" + FILE[len(MAGIC) :], RefusalCode.UNSUPPORTED, id="another version"
        ),
        pytest.param(
            b"".join(written(BLOCKS, FleetId(b"f" * 16))), RefusalCode.FOREIGN_FLEET, id="another fleet's"
        ),
        pytest.param(FILE + PARTS[2], RefusalCode.MALFORMED, id="a block after the end"),
        pytest.param(FILE + PARTS[-1], RefusalCode.MALFORMED, id="a second end"),
        pytest.param(FILE + b"\x04", RefusalCode.MALFORMED, id="a byte after the end"),
        pytest.param(FILE + b"\xff" * 5, RefusalCode.MALFORMED, id="garbage after the end"),
        pytest.param(PARTS[0] + FILE, RefusalCode.MALFORMED, id="two beginnings"),
    ],
)
def test_a_file_that_is_not_one_is_refused_with_its_code(data: bytes, code: RefusalCode) -> None:
    for sizes in ([], [1] * len(data)):
        _, events = read(data, sizes)
        assert [event.code for event in events if isinstance(event, Refused)] == [code]
        assert isinstance(events[-1], Refused)


@pytest.mark.parametrize(
    "message",
    [
        Status({}), Pull(), Ack({}), ShortBlockFrame(b"s"), Want({}), OpenSegment(Head(1, b"h" * 32), 0, b""),
    ],
)  # fmt: skip
def test_only_certificates_the_list_blocks_and_the_end_are_for_a_file(
    message: Status | Pull | Ack | ShortBlockFrame | Want | OpenSegment,
) -> None:
    """What follows something else is not taken: a session that somebody recorded is no courier file."""
    one = reader()
    events = one.receive_data(PARTS[0] + PARTS[1] + encode_frame(message) + PARTS[2])
    assert [type(event) for event in events] == [Hello, CertificateFrame, Refused]
    assert type(message).__name__ in str(events[-1])


def test_the_list_of_revocations_is_for_a_file_too() -> None:
    """Whoever reads it decides what the list is worth; after the end nothing is taken."""
    body = Revocations({EXPORTER: 1}).encode()
    paper = DocumentFrame(SignedDocument.seal(HUB_KEY, FLEET, REVOKED_DOCUMENT, 1, body).encode())
    writer = CourierWriter(FLEET, EXPORTER)
    file = [writer.beginning(HEADS), writer.message(paper), writer.end(HEADS)]
    one, events = read(b"".join(file))
    assert [type(event) for event in events] == [Hello, DocumentFrame, Heads, Ended]
    assert (events[1], one.heads) == (paper, HEADS)
    _, events = read(b"".join([*file[:1], file[2][:-CHECKSUM_BYTES], encode_frame(paper)]))
    assert [type(event) for event in events] == [Hello, Refused]


def test_a_file_larger_than_any_exchange_is_read_holding_one_message() -> None:
    """A month of a fleet is one file: its size is no reason to refuse it, and no reason to hold it."""
    one, writer = reader(), CourierWriter(FLEET, EXPORTER)
    one.receive_data(writer.beginning({}))
    large = writer.message(BlockFrame(bytes(MAX_BLOCK_BYTES)))
    tracemalloc.start()
    try:
        for _ in range(2 * MAX_EXCHANGE_BYTES // len(large)):
            assert len(one.receive_data(large[:1000]) + one.receive_data(large[1000:])) == 1
            large = writer.message(BlockFrame(bytes(MAX_BLOCK_BYTES)))
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_FRAME_BYTES
    finally:
        tracemalloc.stop()
    end = one.receive_data(large + writer.end({})) + one.receive_eof()
    assert end[-2:] == [Heads({}), Ended()]


@pytest.mark.parametrize("count", [MAX_FRONTIER - 1, MAX_FRONTIER, 40_000, MAX_COURIER_AUTHORS])
def test_the_heads_of_more_authors_than_a_message_names_come_in_several(count: int) -> None:
    """A hub exports the ledger of a large fleet: where its file is cut short is noticed all the same."""
    heads = heads_of(count)
    writer = CourierWriter(FLEET, HUB_KEY.replica)
    beginning, end = writer.beginning(heads), writer.end(heads)
    one = CourierReader(FLEET, HUB_KEY.replica)
    one.receive_data(beginning + end)
    before = one.heads
    assert one.receive_eof()[-1] == Ended()
    assert (before, one.heads) == (None, heads)
    short = CourierReader(FLEET, HUB_KEY.replica)
    short.receive_data(beginning + encode_frame(Heads(parts(heads)[0])) * (count >= MAX_FRONTIER))
    assert isinstance(short.receive_eof()[-1], Refused)
    longer = CourierReader(FLEET, HUB_KEY.replica)
    longer.receive_data(beginning + encode_frame(Heads(parts(heads)[0])))
    assert isinstance(longer.receive_data(encode_frame(BlockFrame(bytes(CHECKSUM_BYTES))) * 2)[-1], Refused)


def test_a_file_of_heads_alone_is_refused_before_it_fills_the_memory() -> None:
    """Invariant 8: they are no one's word until the checksum, and a file of them needs no signature."""
    one, told, events = reader(), parts(heads_of(2 * MAX_COURIER_AUTHORS)), []
    one.receive_data(PARTS[0])
    tracemalloc.start()
    try:
        for part in told:
            events += one.receive_data(encode_frame(Heads(part)))
        assert tracemalloc.get_traced_memory()[1] < 24 * MAX_FRAME_BYTES
    finally:
        tracemalloc.stop()
    hello, refused = events
    assert isinstance(hello, Hello)
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.TOO_LARGE
    assert "more authors than one can have" in refused.text
    assert one.receive_eof() == []


def test_no_writer_makes_a_file_that_no_reader_takes() -> None:
    """It is told before the beginning, and not after hours of writing."""
    assert lacks_room(MAX_COURIER_AUTHORS) == ""
    full = "a courier file has room for 63,999 authors, and these blocks are of 64,000"
    assert lacks_room(MAX_COURIER_AUTHORS + 1) == full
    with pytest.raises(MisuseError, match="64000"):
        CourierWriter(FLEET, EXPORTER).end(heads_of(MAX_COURIER_AUTHORS + 1))


@pytest.mark.parametrize("second", [0, MAX_FRONTIER - 1], ids=["again", "overlapping"])
def test_heads_in_parts_are_in_order_from_one_to_the_next(second: int) -> None:
    """One author has one head."""
    whole = list(heads_of(MAX_FRONTIER + 1).items())
    one = reader()
    one.receive_data(PARTS[0] + encode_frame(Heads(dict(whole[:MAX_FRONTIER]))))
    events = one.receive_data(encode_frame(Heads(dict(whole[second:][:2]))) + bytes(CHECKSUM_BYTES))
    assert [type(event) for event in events] == [Refused]
    assert "ascending order" in str(events[0])
