"""The sync session: bytes in, events out, no I/O. One and the same for hub, peer and courier file.

Each side sends HELLO first and then what it likes; TRANSITIONS is the whole of the order. Input that breaks
it, or cannot be read, becomes one `Refused` event and ends the session; nothing is ever raised for it. Over
HTTPS one exchange is one POST: the request's body is one session, the answer's body the other direction of
it.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from crdt.errors import ForeignFleet, InputRefused, Malformed, MisuseError, RefusalCode, TooLarge, Unsupported
from crdt.facts import FleetId, ReplicaId
from crdt.frames import (
    FRAME_HEADER_BYTES,
    MAX_EXCHANGE_BYTES,
    MAX_EXCHANGE_FRAMES,
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
    frame_type,
)
from crdt.frontier import Frontier, missing
from crdt.open_segment import OpenSegment
from crdt.protocol import PROTOCOL_VERSION
from crdt.pull import Pull
from crdt.terminal_status import Status


class State(Enum):
    """What is expected of the other side."""

    AWAIT_HELLO = "await_hello"
    OPEN = "open"
    REFUSED = "refused"  # it broke the protocol; whatever else it sends is dropped
    CLOSED = "closed"  # it ended where it may


@dataclass(frozen=True, slots=True)
class Refused:
    """Event: this side refused what it received. The last event of a session."""

    code: RefusalCode
    text: str

    def answer(self) -> Refusal:
        """The message that tells the other side."""
        return Refusal(self.code, self.text)


@dataclass(frozen=True, slots=True)
class Ended:
    """Event: the other side ended the session in order. The last event of a session."""


Event = Message | Refused | Ended

# What may be received in which state, and the state after it. Whatever is not here is refused.
TRANSITIONS: Final[dict[State, dict[type[Event], State]]] = {
    State.AWAIT_HELLO: {
        Hello: State.OPEN,
        Refused: State.REFUSED,
    },
    State.OPEN: {
        Status: State.OPEN,
        CertificateFrame: State.OPEN,
        BlockFrame: State.OPEN,
        Pull: State.OPEN,
        Ack: State.OPEN,
        PageFrame: State.OPEN,
        DocumentFrame: State.OPEN,
        Refusal: State.OPEN,
        ShortBlockFrame: State.OPEN,
        Want: State.OPEN,
        OpenSegment: State.OPEN,
        Heads: State.OPEN,
        Refused: State.REFUSED,
        Ended: State.CLOSED,
    },
    State.REFUSED: {},
    State.CLOSED: {},
}


class Session:
    """One side of an exchange between `replica` of `fleet` and somebody else.

    Feed it with `receive_data` and `receive_eof`, in pieces of any size; it holds at most one unfinished
    frame.
    """

    def __init__(
        self,
        fleet: FleetId,
        replica: ReplicaId,
        *,
        max_bytes: int = MAX_EXCHANGE_BYTES,
        max_frames: int = MAX_EXCHANGE_FRAMES,
    ) -> None:
        """`max_bytes` and `max_frames` bound what is received in all; a courier file may be given more."""
        self.state = State.AWAIT_HELLO
        self.peer: Hello | None = None  # what the other side said of itself
        self._fleet = fleet
        self._replica = replica
        self._bytes_left = max_bytes
        self._frames_left = max_frames
        self._buffer = bytearray()
        self._said_hello = False

    def hello(self, frontier: Frontier) -> bytes:
        """The bytes that open this side's direction."""
        return self.send(Hello(self._fleet, self._replica, frontier))

    def send(self, message: Message) -> bytes:
        """The bytes of a message. Raises MisuseError when the first is not HELLO, or a later one is."""
        if isinstance(message, Hello) is self._said_hello:
            raise MisuseError("a session's first message, and only that, is HELLO")
        self._said_hello = True
        return encode_frame(message)

    def receive_data(self, data: bytes) -> list[Event]:
        """The events that `data` completes. After a `Refused` everything is dropped."""
        events: list[Event] = []
        if self.state not in (State.AWAIT_HELLO, State.OPEN):
            return events
        try:
            self._bytes_left -= len(data)
            if self._bytes_left < 0:
                raise TooLarge("the exchange is larger than one may be; send the rest in another")
            self._buffer += data
            self._read_frames(events)
        except InputRefused as error:
            events.append(self._refuse(error))
        return events

    def receive_eof(self) -> list[Event]:
        """The event at the end of the input: Ended, or Refused when it ends too early."""
        if self.state not in (State.AWAIT_HELLO, State.OPEN):
            return []
        if self._buffer or self.state is State.AWAIT_HELLO:
            return [self._refuse(Malformed("the session was cut short"))]
        return [self._advance(Ended())]

    def _read_frames(self, events: list[Event]) -> None:
        at = 0
        try:
            while len(self._buffer) - at >= FRAME_HEADER_BYTES:
                body_at = at + FRAME_HEADER_BYTES
                message_type, length = frame_type(bytes(self._buffer[at:body_at]))
                self._check_expected(message_type)
                end = body_at + length
                if end > len(self._buffer):
                    if end - len(self._buffer) > self._bytes_left:
                        raise TooLarge("a message is larger than what is left of the exchange")
                    break
                events.append(self._advance(self._read(message_type, bytes(self._buffer[body_at:end]))))
                at = end
        finally:
            del self._buffer[:at]

    def _check_expected(self, message_type: type[Message]) -> None:
        if message_type not in TRANSITIONS[self.state]:
            raise Malformed(f"a {message_type.__name__} may not come here")
        if not self._frames_left:
            raise TooLarge("the exchange has more messages than one may have")

    def _read(self, message_type: type[Message], body: bytes) -> Message:
        message = message_type.from_body(body)
        if isinstance(message, Hello):
            if message.protocol != PROTOCOL_VERSION:
                raise Unsupported(
                    f"the other side speaks protocol {message.protocol}, this one {PROTOCOL_VERSION}"
                )
            if message.fleet != self._fleet:
                raise ForeignFleet("the other side belongs to another fleet")
            self.peer = message
        self._frames_left -= 1
        return message

    def _advance(self, event: Event) -> Event:
        self.state = TRANSITIONS[self.state][type(event)]
        return event

    def _refuse(self, error: InputRefused) -> Event:
        self._buffer.clear()
        return self._advance(Refused(error.code, str(error)))


def plan(mine: Frontier, theirs: Frontier) -> list[tuple[ReplicaId, int]]:
    """What to send: of each replica that they lack blocks of, the sequence number after which to start."""
    return [(gap.replica, gap.after_seq) for gap in missing(mine, theirs)]
