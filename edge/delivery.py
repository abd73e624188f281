"""What is learned about delivering blocks to the hub, and what a refusal of some means."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from crdt.block import claim_of
from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import MAX_EXCHANGE_DELTAS, Ack
from crdt.frontier import Head
from edge.errors import AnswerRefused, HubRefused, LedgerBehind, UplinkError
from edge.exchange import Answer, refusal_in

MAX_PUSH_BYTES = 512 * 1024
"""Of blocks in one exchange, over a link that is quick enough."""
MIN_PUSH_BYTES = 4 * 1024
"""Below this the blocks are not what takes so long."""
MAX_PAUSE_RUNS = 20
"""Ten minutes of heartbeats."""
QUICK_MS = 10_000
"""A push that took no longer may be followed by one twice as large."""

_NUMBERS = frozenset({RefusalCode.UNKNOWN_CARD_NUMBER, RefusalCode.BAD_SIGNATURE})
_UNREAD = _NUMBERS | {RefusalCode.MALFORMED, RefusalCode.FOREIGN_FLEET, RefusalCode.UNKNOWN_AUTHOR}
_FORKS = frozenset({RefusalCode.FORK_DETECTED, RefusalCode.CHAIN_BROKEN, RefusalCode.RESTORED})


@dataclass(slots=True)
class Pause:
    """How many runs pass before something is tried again, from time to time more."""

    left: int = 0
    following: int = 1
    """How long the next one is."""

    def begin(self) -> None:
        """It was tried."""
        self.left, self.following = self.following, min(MAX_PAUSE_RUNS, 2 * self.following)

    def is_over(self) -> bool:
        """Whether it may be tried in this run; to be asked once in each."""
        if not self.left:
            return True
        self.left -= 1
        return False


@dataclass(slots=True)
class Unwanted:
    """What the hub did not take back of a chain of its own: what comes after this head."""

    head: Head
    pause: Pause = field(default_factory=Pause)


@dataclass(frozen=True, slots=True)
class Unheard:
    """That the hub has not heard all of a list of revocations."""

    version: int
    """Of the list that holds here: as long as it does, this stands."""
    why: str


@dataclass(slots=True)
class Delivery:
    """What a run learns about delivering blocks, for the next one. Losing it costs time and nothing else."""

    push_bytes: int = MAX_PUSH_BYTES
    disputed: dict[ReplicaId, str] = field(default_factory=dict)
    """Chains other than this identity's about which the hub disagrees, with the reason."""
    later: set[ReplicaId] = field(default_factory=set)
    """Chains other than this identity's of which the hub took no more, or which it was still cutting, when it
    was asked last."""
    unproven: set[ReplicaId] = field(default_factory=set)
    """Authors of whose blocks in quarantine the hub took no more when it was asked last."""
    agreed: tuple[ReplicaId, Head] | None = None
    """Who this terminal was, and its head at the hub, when hub and terminal agreed last: what comes after it
    may go up with the first question of the next run."""
    document: int = 0
    """The version of the terminal's document that the hub did not take; 0 for none."""
    objection: str = ""
    """Why it did not."""
    unheard: Unheard | None = None
    """What the hub did not hear, or would not, of the list of revocations held here."""
    keepsake: Pause = field(default_factory=Pause)
    """Before the hub is asked for its own blocks again; shorter with each run that finds nothing new."""
    hearing: Pause = field(default_factory=Pause)
    """Before a hub that refuses this terminal is asked once more for the list of who was revoked."""
    unwanted: dict[ReplicaId, Unwanted] = field(default_factory=dict)
    """Of the hub's own chains, by their author."""

    @property
    def notes(self) -> str:
        """What the hub does not take, in sentences; "" when nothing."""
        unheard = "" if self.unheard is None else self.unheard.why
        return " ".join(filter(None, [*self.disputed.values(), self.objection, unheard]))

    @property
    def doubtful(self) -> set[ReplicaId]:
        """Chains of which one block is offered now and then."""
        return {*self.disputed, *self.later}

    def meets_anew(self) -> None:
        """The hub is not what it was: what it had nothing of, or did not take back, is tried at once."""
        self.keepsake = Pause()
        self.unwanted.clear()

    def timed_out(self) -> None:
        """The link is slower than was hoped."""
        self.agreed = None
        self.push_bytes = max(MIN_PUSH_BYTES, self.push_bytes // 2)

    def went_through(self, took_ms: int) -> None:
        """A push arrived."""
        if took_ms <= QUICK_MS:
            self.push_bytes = min(MAX_PUSH_BYTES, self.push_bytes * 2)


def is_dispute(error: UplinkError) -> bool:
    """Whether it is about the blocks, and not about the hub being busy or the answer being damaged."""
    match error:
        case LedgerBehind():
            return True
        case AnswerRefused(code=code):
            return code is RefusalCode.CHAIN_BROKEN
        case HubRefused(code=name):
            return name.upper() in RefusalCode.__members__
    return False


def is_fork(error: UplinkError) -> bool:
    """Whether the hub says that it holds another chain than the blocks are of."""
    return isinstance(error, HubRefused) and error.code.upper() in {code.name for code in _FORKS}


def is_cut_off(error: UplinkError) -> bool:
    """Whether the hub says that the blocks' author was revoked or replaced before it wrote them."""
    return isinstance(error, HubRefused) and error.code.upper() == RefusalCode.REVOKED.name


def is_for_later(error: UplinkError) -> bool:
    """Whether the hub says that nothing is wrong with the blocks, and to bring them another time."""
    return isinstance(error, HubRefused) and error.code.upper() == RefusalCode.COME_AGAIN.name


def is_unknown(error: UplinkError) -> bool:
    """Whether the hub says that it does not know who speaks."""
    return isinstance(error, HubRefused) and error.code.upper() == RefusalCode.UNKNOWN_AUTHOR.name


def wants_full(answer: Answer) -> bool:
    """Whether the hub did not know, or mistook, a card's number in a short block."""
    return any(refusal.code in _NUMBERS for refusal in answer.refusals)


def at_a_time(raws: Sequence[bytes], most_bytes: int) -> list[bytes]:
    """The first blocks, at least one, with at most so many bytes and with what one exchange may bring."""
    some: list[bytes] = []
    room = MAX_EXCHANGE_DELTAS
    for raw in raws:
        _, count = claim_of(raw) or (None, 0)
        room, most_bytes = room - count, most_bytes - len(raw)
        if some and (room < 0 or most_bytes < 0):
            break
        some.append(raw)
    return some


def is_too_much(answer: Answer) -> bool:
    """Whether the hub has left some of it lying, to come again."""
    return any(refusal.code is RefusalCode.COME_AGAIN for refusal in answer.refusals)


def is_examined(answer: Answer) -> bool:
    """Whether the hub has looked at all of the blocks."""
    return any(isinstance(message, Ack) for message in answer.messages) and not is_too_much(answer)


def is_unread(answer: Answer) -> bool:
    """Whether the hub could not read or verify some of it: what has come there is not what was sent."""
    return any(refusal.code in _UNREAD for refusal in answer.refusals)


def confirmed(
    answer: Answer, replica: ReplicaId, after_seq: int, own: Head, carried: Head | None = None
) -> Head:
    """The head the hub confirms. Raises HubRefused or AnswerRefused unless it moved, within what was sent.

    `carried`: the end of what was sent of another author's chain, which the hub may have further.
    """
    for message in answer.messages:
        if isinstance(message, Ack) and replica in message.frontier:
            head = message.frontier[replica]
            if after_seq < head.seq <= own.seq:
                return head
            if carried is not None and head.seq > own.seq and not answer.refusals:
                return carried
    for refusal in answer.refusals:
        raise refusal_in(refusal)
    raise AnswerRefused(RefusalCode.CHAIN_BROKEN, "it does not confirm the blocks that were sent")
