"""The bodies of WANT, OPEN_SEGMENT, HEADS and PULL: one writing each, everything else is refused (8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.block import MAX_PAYLOAD_BYTES
from crdt.columns import MAX_BLOCK_DELTAS, encode
from crdt.documents import MAX_VERSION
from crdt.errors import InputRefused, Malformed, MisuseError, TooLarge
from crdt.facts import MAX_SEQ, ReplicaId
from crdt.frames import Ack, Heads, Message, Want, encode_frame
from crdt.frontier import GENESIS, MAX_FRONTIER, Head
from crdt.open_segment import OpenSegment
from crdt.pull import MAX_DOCUMENTS, Pull
from crdt.settlement import NO_SERIES
from crdt.wire import Writer
from tests.crdt.test_columns import BUSY

A, B = ReplicaId(b"a" * 16), ReplicaId(b"b" * 16)
HASH = b"h" * 32
STRICT: list[type[Want | OpenSegment | Heads | Ack | Pull]] = [Want, OpenSegment, Heads, Ack, Pull]
EXAMPLES = [
    Want({A: 0, B: MAX_SEQ}, others=True),
    Want({}),
    OpenSegment(Head(0, GENESIS), 2, encode(BUSY[:2]).data),
    OpenSegment(Head(300, HASH), 0, b""),
    Heads({A: Head(1, HASH), B: Head(300, HASH)}),
    Pull(b"s" * 16, 3, documents={"": 1, "fleet": 300, "revoked": 0}),
]


@pytest.mark.parametrize("message", EXAMPLES)
def test_every_truncation_damaged_bit_and_added_byte_is_refused_or_another_message(message: Message) -> None:
    body = message.body()
    assert type(message).from_body(body) == message
    changed = [body[:end] for end in range(len(body))] + [body + b"\0"]
    for bit in range(len(body) * 8):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        changed.append(bytes(flipped))
    for each in changed:
        try:
            found = type(message).from_body(each)
        except InputRefused:
            continue
        assert found != message
        assert found.body() == each


@pytest.mark.parametrize("kind", STRICT)
@given(data=st.binary(max_size=120))
def test_random_bytes_are_refused_or_the_only_writing(
    kind: type[Want | OpenSegment | Heads | Ack | Pull], data: bytes
) -> None:
    try:
        found = kind.from_body(data)
    except InputRefused:
        return
    assert found.body() == data


def wanted(*rows: tuple[bytes, int], others: int = 0, count: int | None = None) -> bytes:
    writer = Writer().uint(others, 1).varint(len(rows) if count is None else count)
    for replica, seq in rows:
        writer.raw(replica).varint(seq)
    return writer.done()


def opened(seq: int, digest: bytes, count: int, payload: bytes) -> bytes:
    return Writer().varint(seq).raw(digest).uint(count, 2).raw(payload).done()


def pulled(*names: str, count: int | None = None) -> bytes:
    writer = Writer().raw(NO_SERIES).varint(0).varint(0).short(b"")
    writer.uint(len(names) if count is None else count, 1)
    for name in names:
        writer.text(name).varint(1)
    return writer.done()


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        pytest.param(Want, wanted((B, 1), (A, 1)), Malformed, id="wanted out of order"),
        pytest.param(Want, wanted((A, 1), (A, 2)), Malformed, id="wanted twice"),
        pytest.param(Want, wanted((A, MAX_SEQ + 1)), Malformed, id="wanted beyond any number"),
        pytest.param(Want, wanted((A, 1), others=2), Malformed, id="others neither yes nor no"),
        pytest.param(Want, wanted(count=MAX_FRONTIER + 1), TooLarge, id="wanted too much"),
        pytest.param(Want, wanted(count=2**64 - 1), TooLarge, id="wanted far too much"),
        pytest.param(OpenSegment, opened(0, HASH, 0, b""), Malformed, id="after a first block that is none"),
        pytest.param(OpenSegment, opened(1, GENESIS, 0, b""), Malformed, id="after no block, numbered"),
        pytest.param(OpenSegment, opened(1, HASH, 0, b"x"), Malformed, id="contents and no deltas"),
        pytest.param(OpenSegment, opened(1, HASH, 1, b""), Malformed, id="deltas and no contents"),
        pytest.param(OpenSegment, opened(MAX_SEQ + 1, HASH, 0, b""), Malformed, id="after any number"),
        pytest.param(
            OpenSegment, opened(1, HASH, MAX_BLOCK_DELTAS + 1, b"x"), Malformed, id="too many deltas"
        ),
        pytest.param(Heads, Writer().varint(MAX_FRONTIER + 1).done(), TooLarge, id="too many heads"),
        pytest.param(Heads, wanted((A, 1))[1:] + HASH[:-1], Malformed, id="half a hash"),
        pytest.param(Pull, pulled("revoked", "fleet"), Malformed, id="documents out of order"),
        pytest.param(Pull, pulled("fleet", "fleet"), Malformed, id="a document twice"),
        pytest.param(Pull, pulled("", ""), Malformed, id="a document without a name, twice"),
        pytest.param(Pull, pulled(count=MAX_DOCUMENTS + 1), Malformed, id="too many documents"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused(
    kind: type[Want | OpenSegment | Heads | Pull], body: bytes, error: type[InputRefused]
) -> None:
    with pytest.raises(error):
        kind.from_body(body)


def test_the_largest_of_each_fits_its_frame() -> None:
    replicas = [ReplicaId(at.to_bytes(16, "big")) for at in range(MAX_FRONTIER)]
    names = [f"{at}".ljust(64) for at in range(MAX_DOCUMENTS)]
    largest: list[Message] = [
        Want(dict.fromkeys(replicas, MAX_SEQ), others=True),
        Heads(dict.fromkeys(replicas, Head(MAX_SEQ, HASH))),
        OpenSegment(Head(MAX_SEQ, HASH), MAX_BLOCK_DELTAS, bytes(MAX_PAYLOAD_BYTES)),
        Pull(b"s" * 16, 2**63 - 2, documents=dict.fromkeys(names, MAX_VERSION)),
    ]
    for message in largest:
        encode_frame(message)
        assert type(message).from_body(message.body()) == message


def test_more_documents_than_a_pull_names_are_our_own_mistake() -> None:
    with pytest.raises(MisuseError):
        Pull(documents={f"{at}": 1 for at in range(MAX_DOCUMENTS + 1)}).body()
