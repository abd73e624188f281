"""What lies between a bus and the depot: requests and answers get lost, late, twice, or damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeVar

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import DocumentFrame, Message
from crdt.session import Session
from edge.errors import HubRefused, HubTooSlow, HubUnreachable
from edge.exchange import Answer, split
from tests.simulation.authors import HOME, Author
from tests.simulation.hubs import Hub
from tests.simulation.power import PowerCut

T = TypeVar("T")

QUICK_MS: Final = 20
TURNED_AWAY: Final = 0.5  # of what tells a hub which list it has lost, where anything goes wrong at all
MAX_LATE: Final = 4  # requests under way that the terminal has given up


@dataclass(frozen=True)
class Faults:
    """How often what happens to an exchange, each of 1."""

    lost: float = 0.0  # the request
    unanswered: float = 0.0  # the answer is lost: the hub has done what was asked
    late: float = 0.0  # the request arrives after the terminal has given it up
    twice: float = 0.0  # the request
    damaged: float = 0.0  # the request or the answer
    stale: float = 0.0  # an earlier answer comes instead

    @property
    def any(self) -> bool:
        """Whether anything can happen."""
        return self != Faults()


NO_FAULTS: Final = Faults()


@dataclass
class Network:
    """Carries exchanges from terminals to the hub."""

    hub: Hub
    random: Random
    faults: Faults = NO_FAULTS
    partitioned: set[int] = field(default_factory=set)  # numbers of buses
    revoked: set[ReplicaId] = field(default_factory=set)
    late: list[tuple[ReplicaId, bytes, int]] = field(default_factory=list)  # with when it was sent
    log: list[str] = field(default_factory=list)
    _overtaken: list[tuple[ReplicaId, int, int]] = field(default_factory=list)  # by what was sent after it
    _answers: dict[ReplicaId, list[bytes]] = field(default_factory=dict)

    async def exchange(
        self,
        number: int,
        replica: ReplicaId,
        messages: Sequence[Message],
        *,
        fresh: bool = False,
        promised: bool = False,
    ) -> Answer:
        """One POST of bus `number`, as this replica. Raises UplinkError as edge.exchange does.

        `promised`: it has not taken that identity up, so a hub that was put back may have forgotten it.
        `fresh`: no old answer comes instead, and what is damaged does not arrive. What a terminal is compared
        by, it is compared by once; and it tells a hub once which list that has lost. TLS sees to both.
        """
        if number in self.partitioned:
            raise HubUnreachable("No hub answers.")
        session = Session(HOME.id, replica)
        body = b"".join(map(session.send, messages))
        tells = any(isinstance(message, DocumentFrame) for message in messages)
        received = self._turned_away() if tells else b""
        if promised and not self.hub.has_given(replica):
            raise HubRefused("The hub does not know the terminal.", RefusalCode.UNKNOWN_AUTHOR.name.lower())
        received = received or self._carry(replica, body, fresh or promised or tells)
        return Answer(*split([*session.receive_data(received), *session.receive_eof()]), None, QUICK_MS)

    def renew(
        self, number: int, author: Author, before: AbstractSet[ReplicaId], forgotten: Author | None
    ) -> None:
        """Ask the hub for the next identity of bus `number`, which ends those before; `forgotten`: and what
        it had promised and does not know any more. Raises UplinkError."""
        if number in self.partitioned or not before.isdisjoint(self.revoked):
            raise HubUnreachable("No hub answers.")
        fate = self._fate()
        self.log.append(fate)
        if fate == "lost":
            raise HubUnreachable("No hub answers.")
        self._at_hub(lambda: self.hub.renew(author, before, forgotten))
        if fate == "unanswered":
            raise HubTooSlow("The hub took too long to answer.")

    def deliver_late(self) -> None:
        """One of the requests under way arrives; nobody waits for the answer any more."""
        replica, body, sent_ms = self.late.pop(self.random.randrange(len(self.late)))
        if replica not in self.revoked:
            self._overtaken.append((replica, sent_ms, self.hub.now_ms))
            self._ask(replica, body)

    def overtaken(self, replicas: Sequence[ReplicaId], at_ms: int) -> bool:
        """Whether what these said before then came after it: the hub took it for what they said last."""
        return any(one in replicas and sent <= at_ms <= came for one, sent, came in self._overtaken)

    def _carry(self, replica: ReplicaId, body: bytes, fresh: bool) -> bytes:
        """The bytes that come back."""
        fate = self._fate()
        self.log.append(fate)
        if fate == "lost":
            raise HubUnreachable("No hub answers.")
        if fate == "late" and len(self.late) < MAX_LATE:
            self.late.append((replica, body, self.hub.now_ms))
            raise HubTooSlow("The hub took too long to answer.")
        if fate == "stale" and replica in self._answers and not fresh:
            return self.random.choice(self._answers[replica])
        damage = fate == "damaged"
        if damage and fresh:
            raise HubUnreachable("The connection broke.")
        if damage and self.random.random() < 0.5:
            body, damage = self._damaged(body), False
        if fate == "twice":
            self._ask(replica, body)
        answer = self._ask(replica, body)
        self._answers.setdefault(replica, []).append(answer)
        if fate == "unanswered":
            raise HubTooSlow("The hub took too long to answer.")
        return self._damaged(answer) if damage else answer

    def _turned_away(self) -> bytes:
        """What the hub answers when it has no time for a list; nothing when it has."""
        if not self.faults.any or self.random.random() >= TURNED_AWAY:
            return b""
        self.log.append("turned away")
        return self.hub.turn_away()

    def _fate(self) -> str:
        if not self.faults.any:
            return ""
        luck = self.random.random()
        for fate, chance in vars(self.faults).items():
            luck -= chance
            if luck < 0:
                return str(fate)
        return ""

    def _ask(self, replica: ReplicaId, body: bytes) -> bytes:
        if replica in self.revoked:
            raise HubRefused("The hub refused: the terminal was revoked.", "revoked")
        return self._at_hub(lambda: self.hub.answer(replica, body))

    def _at_hub(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except PowerCut as cut:
            if cut.name != self.hub.power.name:
                raise
            self.log.append("hub power cut")
            self.hub.start()
            raise HubUnreachable("No hub answers.") from None

    def _damaged(self, data: bytes) -> bytes:
        at = self.random.randrange(len(data))
        if self.random.random() < 0.3:
            return data[:at]
        return data[:at] + bytes([data[at] ^ (1 << self.random.randrange(8))]) + data[at + 1 :]
