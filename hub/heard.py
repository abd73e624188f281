"""What a terminal says to the hub in one exchange, taken message by message and within bounds."""

import logging
from dataclasses import dataclass, field
from functools import lru_cache

from crdt.certificate import AuthorCertificate
from crdt.errors import NotPermitted
from crdt.facts import ID_BYTES, ReplicaId, TerminalId
from crdt.frames import (
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Heads,
    Hello,
    Refusal,
    ShortBlockFrame,
    Want,
)
from crdt.frontier import Frontier
from crdt.pull import Pull
from crdt.session import Ended, Event, Refused
from crdt.store.blocks import NO_HEAD
from crdt.store.days import QUARTER_MS
from crdt.terminal_status import Status

log = logging.getLogger(__name__)

MAX_CERTIFICATES = 1024  # in one exchange; each costs a signature verification
MAX_AHEAD_MS = 24 * 60 * 60 * 1000  # a terminal's clock that is further ahead is set back: edge.clock
KEPT_CERTIFICATES = 20_000  # of all exchanges, decoded and not verified: one for each terminal of a hub


@dataclass(slots=True)
class Heard:
    """What a terminal said in one exchange. `replica` and `terminal`: whose TLS certificate it showed."""

    replica: ReplicaId
    name: str
    terminal: TerminalId | None = None
    hello: Hello | None = None
    status: Status | None = None
    pull: Pull | None = None
    certificates: list[AuthorCertificate] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    shorts: list[bytes] = field(default_factory=list)  # short blocks: their cards are numbers
    documents: list[bytes] = field(default_factory=list)
    want: Want | None = None
    settled: Heads | None = None  # what a settlement included that it had before
    refused: Refused | None = None  # it broke the protocol; nothing of it counts

    @property
    def says_of_itself(self) -> bool:
        """Whether HELLO tells how far its own chain goes: it begins a round, or names the chain."""
        named = self.hello is not None and self.replica in self.hello.frontier
        return named or self.status is not None

    @property
    def said_all(self) -> bool:
        """Whether it has nothing but what HELLO names: it says of itself that no tap is left to be sealed."""
        said = None if self.status is None else self.status.values
        return said is not None and not said.get("open") and not said.get("suspended")

    def said_ms(self, now_ms: int) -> int:
        """The end of the time of which it has said all, if it has: what it writes from now on is dated later.

        Now, or earlier where its clock has not come so far. Days end at quarters of an hour. 0 for no word of
        any time: of a clock that is so far in the future that it will be set back.
        """
        dated_from_ms = now_ms if self.status is None else self.status.values.get("dated_from_ms", now_ms)
        if not isinstance(dated_from_ms, int) or dated_from_ms > now_ms + MAX_AHEAD_MS:
            return 0
        quarter_ms = now_ms // QUARTER_MS * QUARTER_MS
        return now_ms if dated_from_ms >= quarter_ms else max(0, dated_from_ms)

    @property
    def former(self) -> Frontier:
        """Where its storage has the identities that wrote there before, by its word: STATUS names them, HELLO
        their heads."""
        said = None if self.status is None else self.status.values.get("former")
        named = [_replica(each) for each in said] if isinstance(said, list) else []
        heads = {} if self.hello is None else self.hello.frontier
        return {one: heads.get(one, NO_HEAD) for one in named if one is not None}

    def take(self, event: Event) -> None:
        """One more event of the session. Raises InputRefused for what a hub does not take."""
        match event:
            case Hello():
                if event.replica != self.replica:
                    raise NotPermitted("The TLS certificate belongs to another replica than HELLO names.")
                self.hello = event
            case Status():
                self.status = event
            case Pull():
                self.pull = event
            case CertificateFrame(raw):
                self._certificate(raw)
            case BlockFrame(raw):
                self.blocks.append(raw)
            case ShortBlockFrame(raw):
                self.shorts.append(raw)
            case DocumentFrame(raw):
                self.documents.append(raw)
            case Want():
                self.want = event
            case Heads():
                self.settled = event
            case Refusal():
                log.warning("%s refused what it was sent: %s: %s", self.name, event.code.name, event.text)
            case Refused():
                self.refused = event
            case Ended() | Ack():
                pass
            case _:
                raise NotPermitted(f"A hub takes no {type(event).__name__}.")

    def _certificate(self, raw: bytes) -> None:
        if len(self.certificates) >= MAX_CERTIFICATES:
            raise NotPermitted(f"At most {MAX_CERTIFICATES} certificates may come in one exchange.")
        self.certificates.append(_decoded(raw))


def _replica(text: object) -> ReplicaId | None:
    """The id that a terminal wrote in hex; None where it is none."""
    try:
        raw = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        raw = b""
    return ReplicaId(raw) if len(raw) == ID_BYTES else None


@lru_cache(KEPT_CERTIFICATES)
def _decoded(raw: bytes) -> AuthorCertificate:
    """A terminal brings the same one with each block, byte for byte. Raises InputRefused."""
    return AuthorCertificate.decode(raw)
