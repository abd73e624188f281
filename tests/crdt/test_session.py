"""The sync session: every state and message, any chunking, and hostile input within bounds (invariant 8)."""

import tracemalloc
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.block import MAX_BLOCK_BYTES
from crdt.cursor import MAX_POSITION, Cursor
from crdt.errors import Malformed, MisuseError, RefusalCode
from crdt.facts import MAX_SEQ, FleetId, ReplicaId
from crdt.frames import (
    FRAME_HEADER_BYTES,
    MAX_EXCHANGE_BYTES,
    MAX_EXCHANGE_FRAMES,
    MAX_FRAME_BYTES,
    MESSAGES,
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Heads,
    Hello,
    Message,
    PageFrame,
    Refusal,
    ShortBlockFrame,
    Want,
    encode_frame,
)
from crdt.frontier import GENESIS, MAX_FRONTIER, Head
from crdt.open_segment import OpenSegment
from crdt.protocol import MAX_PAGE_BYTES
from crdt.pull import Pull
from crdt.session import TRANSITIONS, Ended, Event, Refused, Session, State, plan
from crdt.terminal_status import Status
from tests.crdt.world import FLEET, HUB_KEY, TERMINALS

ME, PEER = TERMINALS[0].key.replica, HUB_KEY.replica

replicas = st.binary(min_size=16, max_size=16).map(ReplicaId)
heads = st.builds(Head, st.integers(1, MAX_SEQ), st.binary(min_size=31, max_size=31).map(b"h".__add__))
frontiers = st.dictionaries(replicas, heads, max_size=4)
places = st.one_of(
    st.tuples(st.binary(min_size=4, max_size=16), st.just(b"")),
    st.tuples(st.just(b""), st.binary(min_size=16, max_size=16)),
)
cursors = st.one_of(
    st.integers(0, MAX_POSITION + 1).map(Cursor),
    st.builds(
        lambda at, place, more: Cursor(at, *place)._replace(seen=min(at + more, MAX_POSITION)),
        st.integers(1, MAX_POSITION),
        places,
        st.integers(0, 300),
    ),
    st.builds(
        lambda place, since: Cursor(0, *place)._replace(since=since, seen=since),
        places,
        st.integers(1, MAX_POSITION),
    ),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), values, max_size=3)
    ),
    max_leaves=8,
)
later_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Status, st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), json_values, max_size=4)
    ),
    st.builds(CertificateFrame, st.binary(max_size=256)),
    st.builds(BlockFrame, st.binary(max_size=300)),
    st.builds(
        Pull,
        series=st.binary(min_size=16, max_size=16),
        base=st.integers(0, 2**63 - 2),
        after=cursors,
        documents=st.dictionaries(
            st.sampled_from(["", "fleet", "revoked", "terminal"]), st.integers(0, 2**63 - 2)
        ),
    ),
    st.builds(Ack, frontiers),
    st.builds(PageFrame, st.binary(max_size=300)),
    st.builds(DocumentFrame, st.binary(max_size=300)),
    st.builds(Refusal, st.sampled_from(RefusalCode), st.from_regex(r"[ -~]{0,60}", fullmatch=True)),
    st.builds(ShortBlockFrame, st.binary(max_size=300)),
    st.builds(
        Want,
        st.dictionaries(replicas, st.integers(0, MAX_SEQ), max_size=4),
        st.booleans(),
    ),
    st.builds(
        OpenSegment,
        heads | st.just(Head(0, GENESIS)),
        st.integers(1, 4096),
        st.binary(min_size=1, max_size=300),
    ),
    st.builds(OpenSegment, heads, st.just(0), st.just(b"")),
    st.builds(Heads, frontiers),
)
hellos = st.builds(Hello, st.just(FLEET), st.just(PEER), frontiers)

HELLO = encode_frame(Hello(FLEET, PEER))
EXAMPLES: dict[type[Event], Message] = {
    Hello: Hello(FLEET, PEER),
    Status: Status({"held": 3}),
    CertificateFrame: CertificateFrame(b"c"),
    BlockFrame: BlockFrame(b"b"),
    Pull: Pull(),
    Ack: Ack({}),
    PageFrame: PageFrame(b"p"),
    DocumentFrame: DocumentFrame(b"d"),
    Refusal: Refusal(RefusalCode.REVOKED, "this terminal was withdrawn"),
    ShortBlockFrame: ShortBlockFrame(b"s"),
    Want: Want({ME: 0}, others=True),
    OpenSegment: OpenSegment(Head(0, GENESIS), 1, b"o"),
    Heads: Heads({}),
}


def session() -> Session:
    return Session(FLEET, ME)


def chunks(data: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def fed(data: bytes) -> tuple[Session, list[Event]]:
    one = session()
    return one, one.receive_data(data) + one.receive_eof()


def in_state(state: State) -> Session:
    one = session()
    feed: dict[State, Callable[[], object]] = {
        State.AWAIT_HELLO: list,
        State.OPEN: lambda: one.receive_data(HELLO),
        State.REFUSED: lambda: one.receive_data(b"\xff" * 5),
        State.CLOSED: lambda: one.receive_data(HELLO) + one.receive_eof(),
    }
    feed[state]()
    assert one.state is state
    return one


@pytest.mark.parametrize("message_type", MESSAGES)
@pytest.mark.parametrize("state", State)
def test_every_message_in_every_state_goes_by_the_table(state: State, message_type: type[Message]) -> None:
    """The table is the whole of the protocol's order: what it has is taken, all else refused or dropped."""
    one = in_state(state)
    events = one.receive_data(encode_frame(EXAMPLES[message_type]))
    if message_type in TRANSITIONS[state]:
        assert events == [EXAMPLES[message_type]]
        assert one.state is TRANSITIONS[state][message_type]
    elif TRANSITIONS[state]:
        assert [event.code for event in events if isinstance(event, Refused)] == [RefusalCode.MALFORMED]
        assert one.state is State.REFUSED
    else:
        assert (events, one.state) == ([], state)


@pytest.mark.parametrize("state", State)
def test_the_end_of_input_in_every_state(state: State) -> None:
    one = in_state(state)
    events = one.receive_eof()
    if Ended in TRANSITIONS[state]:
        assert (events, one.state) == ([Ended()], State.CLOSED)
    elif TRANSITIONS[state]:
        assert (type(events[0]), one.state) == (Refused, State.REFUSED)
    else:
        assert (events, one.state) == ([], state)


def test_the_table_names_every_message_and_every_state() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {kind for row in TRANSITIONS.values() for kind in row} == {*MESSAGES, Refused, Ended}


@given(hellos, st.lists(later_messages, max_size=6), st.lists(st.integers(0, 40), max_size=30))
def test_messages_arrive_as_sent_however_the_bytes_are_cut(
    hello: Hello, messages: list[Message], sizes: list[int]
) -> None:
    sender = Session(FLEET, PEER)
    data = b"".join([sender.hello(hello.frontier), *(sender.send(message) for message in messages)])
    one = session()
    events = [event for chunk in chunks(data, sizes) for event in one.receive_data(chunk)]
    assert [*events, *one.receive_eof()] == [hello, *messages, Ended()]
    assert one.peer == hello


@given(hellos, st.lists(later_messages, max_size=3), st.data())
def test_every_truncation_is_noticed(hello: Hello, messages: list[Message], data: st.DataObject) -> None:
    """What came whole is an event; a session that ends within a message, or before HELLO, is refused."""
    frames = [encode_frame(message) for message in [hello, *messages]]
    whole = b"".join(frames)
    end = data.draw(st.integers(0, len(whole) - 1))
    borders = {sum(map(len, frames[:count])) for count in range(1, len(frames))}
    _, events = fed(whole[:end])
    assert isinstance(events[-1], Ended if end in borders else Refused)


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_give_one_refusal_and_then_silence(data: bytes, after_hello: bool) -> None:
    one, events = fed((HELLO if after_hello else b"") + data)
    assert sum(isinstance(event, Refused | Ended) for event in events) == 1
    assert isinstance(events[-1], Refused | Ended)
    assert one.state in (State.REFUSED, State.CLOSED)
    assert one.receive_data(HELLO) == one.receive_eof() == []


def test_every_flipped_bit_of_a_hello_is_read_differently_or_refused() -> None:
    frontier = {ReplicaId(bytes([at]) * 16): Head(at, bytes(32)) for at in (1, 2)}
    data = encode_frame(Hello(FLEET, PEER, frontier))
    _, right = fed(data)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        _, events = fed(bytes(flipped))
        assert events != right


def frame(kind: int, length: int, body: bytes = b"") -> bytes:
    return bytes([kind]) + length.to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(0, 0), RefusalCode.MALFORMED, id="type 0"),
        pytest.param(HELLO + frame(14, 0), RefusalCode.MALFORMED, id="an unknown type"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", RefusalCode.MALFORMED, id="HTTP"),
        pytest.param(frame(1, 2**32 - 1), RefusalCode.TOO_LARGE, id="a HELLO of 4 GiB"),
        pytest.param(HELLO + frame(4, MAX_BLOCK_BYTES + 1), RefusalCode.TOO_LARGE, id="a huge block"),
        pytest.param(HELLO + frame(7, MAX_PAGE_BYTES + 1), RefusalCode.TOO_LARGE, id="a huge page"),
        pytest.param(HELLO + frame(2, 4097), RefusalCode.TOO_LARGE, id="a huge status"),
        pytest.param(HELLO + frame(6, 3, b"\xff\xff\x7f"), RefusalCode.TOO_LARGE, id="a huge frontier"),
        pytest.param(HELLO + frame(5, 1, b"x"), RefusalCode.MALFORMED, id="a short PULL"),
        pytest.param(HELLO + frame(5, 23, bytes(23)), RefusalCode.MALFORMED, id="a long PULL"),
        pytest.param(HELLO + frame(5, 22, bytes(18) + b"\x01a\0\0"), RefusalCode.MALFORMED, id="no card"),
        pytest.param(HELLO + frame(9, 1, b"\0"), RefusalCode.MALFORMED, id="no such code"),
        pytest.param(HELLO + HELLO, RefusalCode.MALFORMED, id="HELLO twice"),
        pytest.param(encode_frame(Hello(FLEET, PEER, protocol=2)), RefusalCode.UNSUPPORTED, id="protocol 2"),
        pytest.param(
            encode_frame(Hello(FleetId(bytes(16)), PEER)), RefusalCode.FOREIGN_FLEET, id="another fleet"
        ),
    ],
)
def test_bad_input_is_refused_with_its_code(data: bytes, code: RefusalCode) -> None:
    one, events = fed(data)
    refused = events[-1]
    assert isinstance(refused, Refused)
    assert refused.code is code
    assert refused.answer() == Refusal(code, refused.text)
    assert one.state is State.REFUSED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"3",
        b"{",
        b"\xff",
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":Infinity}',
        b'{"a":9223372036854775808}',
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b"[" * 4096,
        b'{"a":' * 800,
        b'{"a":' + b"9" * 4000 + b"}",
    ],
)
def test_a_status_that_is_not_plain_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        Status.from_body(body)


def test_memory_is_bounded_by_one_frame_and_the_whole_by_the_exchange() -> None:
    """A sender that never stops: refused at the limit, with little held."""
    one = session()
    one.receive_data(HELLO)
    chunk = encode_frame(BlockFrame(bytes(MAX_BLOCK_BYTES)))
    tracemalloc.start()
    try:
        refused: list[Event] = []
        sent = 0
        while not refused:
            refused = [event for event in one.receive_data(chunk) if isinstance(event, Refused)]
            sent += len(chunk)
            assert sent <= MAX_EXCHANGE_BYTES + 2 * len(chunk)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_FRAME_BYTES
    finally:
        tracemalloc.stop()


def test_a_frame_larger_than_what_is_left_is_refused_at_its_header() -> None:
    one = Session(FLEET, ME, max_bytes=2000)
    events = one.receive_data(HELLO + frame(4, 1990))
    assert [type(event) for event in events] == [Hello, Refused]


def test_many_tiny_messages_are_bounded_too() -> None:
    one = session()
    events = one.receive_data(HELLO + encode_frame(Ack({})) * MAX_EXCHANGE_FRAMES)
    assert len(events) == MAX_EXCHANGE_FRAMES + 1
    assert isinstance(events[-1], Refused)


def test_the_largest_frontier_fits_one_frame() -> None:
    """10,000 terminals on one cluster, with room for re-pairings."""
    frontier = {
        ReplicaId(number.to_bytes(16, "big")): Head(MAX_SEQ, b"\xff" * 32) for number in range(MAX_FRONTIER)
    }
    data = encode_frame(Hello(FLEET, PEER, frontier))
    assert len(data) <= MAX_FRAME_BYTES
    assert fed(data)[1] == [Hello(FLEET, PEER, frontier), Ended()]
    assert all(each.MAX_BODY_BYTES + FRAME_HEADER_BYTES <= MAX_FRAME_BYTES for each in MESSAGES)


def test_our_own_misuse_is_an_error_and_not_a_refusal() -> None:
    one = session()
    with pytest.raises(MisuseError):
        one.send(Pull())
    one.hello({})
    with pytest.raises(MisuseError):
        one.hello({})
    with pytest.raises(MisuseError):
        one.send(BlockFrame(bytes(MAX_BLOCK_BYTES + 1)))
    with pytest.raises(MisuseError):
        one.send(Status({"a": float("nan")}))
    with pytest.raises(MisuseError):
        one.send(Status({"a": object()}))


def test_a_refusals_sentence_is_cut_and_cleaned_for_showing() -> None:
    data = HELLO + encode_frame(Refusal(RefusalCode.REVOKED, "ü" * 600))
    refusal = fed(data)[1][1]
    assert isinstance(refusal, Refusal)
    assert refusal.text.startswith("ü" * 256)
    assert Refusal.from_body(b"\x09a\x1b[2J\xff").text == "a\ufffd[2J\ufffd"
    assert Refusal.of(Malformed("no")) == Refusal(RefusalCode.MALFORMED, "no")


@given(frontiers, frontiers)
def test_the_plan_sends_exactly_what_the_other_side_lacks(
    mine: dict[ReplicaId, Head], theirs: dict[ReplicaId, Head]
) -> None:
    planned = dict(plan(mine, theirs))
    for replica, head in mine.items():
        held = theirs[replica].seq if replica in theirs else 0
        assert planned.get(replica) == (held if head.seq > held else None)
    assert list(planned) == sorted(planned)
