"""Brings this terminal's ledger and a peer's together, without a hub: open taps and sealed blocks, both ways.

The peer is trusted about its own open taps and nothing else. Whatever stops this half way, the next exchange
goes on from what both sides hold.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.errors import InputRefused, RefusalCode, UnknownAuthor
from crdt.facts import ReplicaId
from crdt.frames import Ack, BlockFrame, CertificateFrame, DocumentFrame, Hello, Message, Want
from crdt.frontier import Frontier, Head, joined, missing
from crdt.open_segment import OpenSegment
from crdt.store.blocks import NO_HEAD
from edge import revoked_list
from edge.delivery import at_a_time
from edge.errors import AnswerRefused
from edge.exchange import Answer
from edge.peer_answering import MAX_CERTIFICATES, MAX_HELD, overfull, own_segment, taken_now
from edge.presence import Presence
from edge.terminal import Terminal

MAX_PUSH_BYTES = 512 * 1024
"""Of blocks in one exchange."""
MAX_PUSH_FRAMES = 60
"""Certificates and blocks in one exchange before the last chain; a peer takes no more certificates."""
MAX_EXCHANGES = 64
"""In one run; what is left then is the next run's."""

_LOST = frozenset({RefusalCode.RESTORED})

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class PeerSync:
    """Exchanges with one peer. `exchange` talks to it; `in_thread` runs a step that may wait for the disk."""

    terminal: Terminal
    presence: Presence
    peer: ReplicaId
    exchange: Callable[[Sequence[Message]], Awaitable[Answer]]
    in_thread: Callable[..., Awaitable[T]] = asyncio.to_thread
    brought: int = 0
    """Blocks that were new here, so far."""
    _stuck: set[ReplicaId] = field(default_factory=set)
    """Chains that the peer does not take from here; another may bring it what is missing between."""

    async def tell(self) -> bool:
        """One short exchange: our open taps for theirs. Whether sealed blocks are missing on either side.

        Raises UplinkError, Superseded when this terminal became another, StoreError.
        """
        heads, segment = await self._use(self._own)
        answer = await self._say(heads, [] if segment is None else [segment])
        known = await self._use(self._meet, answer)
        lacking = any(gap.replica not in self._stuck for gap in missing(heads, answer.hello.frontier))
        return lacking or not known

    async def run(self) -> bool:
        """Until neither has blocks for the other; False, or True after MAX_EXCHANGES. Raises as `tell`."""
        self._stuck.clear()
        for _ in range(MAX_EXCHANGES):
            mine, segment = await self._use(self._all)
            told: list[Message] = [] if segment is None else [segment]
            asking = await self._use(revoked_list.asking, self.presence.ledger)
            own = CertificateFrame(self.presence.identity.certificate.encode())
            answer = await self._say(mine, [own, Want({}), asking, *told])
            await self._use(self._learn, answer)
            lacked = await self._use(
                revoked_list.newer_than, self.presence.ledger, revoked_list.named(answer.messages)
            )
            if lacked:
                await self._say({}, [*lacked, *told])
            theirs = answer.hello.frontier
            wanted = await self._use(self._gaps, theirs)
            if wanted:
                answer = await self._say(mine, [Want(wanted)])
            pulled = await self._use(self._take, answer)
            await self._use(self._meet, answer)
            self.brought += pulled
            if not await self._push(mine, theirs) and not pulled:
                return False
        return True

    async def _push(self, mine: Frontier, theirs: Frontier) -> bool:
        """One exchange up with what they lack; whether they took anything."""
        frames = await self._use(self._lacking, mine, theirs)
        if not frames:
            return False
        answer = await self._say(mine, frames)
        acknowledged: dict[ReplicaId, Head] = {}
        for message in answer.messages:
            if isinstance(message, Ack):
                acknowledged.update(message.frontier)
        offered = {parse(frame.raw).header.replica for frame in frames if isinstance(frame, BlockFrame)}
        moved = {
            replica
            for replica in offered & acknowledged.keys()
            if acknowledged[replica].seq > theirs.get(replica, NO_HEAD).seq
        }
        self._stuck |= offered - moved
        return bool(moved)

    async def _say(self, heads: Frontier, messages: Sequence[Message]) -> Answer:
        identity = self.presence.identity
        return await self.exchange([Hello(identity.fleet, identity.replica, heads), *messages])

    async def _use(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def work() -> T:
            with self.terminal.syncing(self.presence.identity):
                return step(*args, **kwargs)

        return await self.in_thread(work)

    def _own(self) -> tuple[Frontier, OpenSegment | None]:
        head = self.presence.ledger.own_head()
        heads = {self.presence.identity.replica: head} if head.seq else {}
        return heads, own_segment(self.presence.ledger)

    def _all(self) -> tuple[Frontier, OpenSegment | None]:
        return self.presence.ledger.frontier(), own_segment(self.presence.ledger)

    def _gaps(self, theirs: Frontier) -> dict[ReplicaId, int]:
        """What to ask for: where they are further than what is held or settled here, or where something
        before that is missing; nothing when it is full.

        Blocks of this terminal's own that are not here too: its storage was put back, and it has to notice.
        """
        ledger = self.presence.ledger
        if ledger.status()["held"] > MAX_HELD:
            return {}
        known = joined(ledger.settled_frontier(theirs), ledger.frontier())
        wanted = {gap.replica: gap.after_seq for gap in missing(theirs, known)}
        wanted |= {
            replica: after_seq
            for replica, after_seq in ledger.lacking().items()
            if replica in theirs and theirs[replica].seq > after_seq
        }
        full = overfull(ledger, wanted)
        return {replica: after_seq for replica, after_seq in wanted.items() if replica not in full}

    def _take(self, answer: Answer) -> int:
        """Keep the sealed blocks of an answer; how many were new. What is wrong with one concerns others."""
        ledger = self.presence.ledger
        blocks = [message.raw for message in answer.messages if isinstance(message, BlockFrame)]
        report = ledger.merge(taken_now(ledger, blocks), _certificates(answer))
        if ledger.suspended:
            self._take_back([refused.raw for refused in report.refused if refused.error.code in _LOST])
        return len(report.added)

    def _take_back(self, raws: Sequence[bytes]) -> None:
        """Have own blocks again that an old copy of the storage lacks, where they continue what is here.

        The peer will bring them to the hub in any case. Facts that the copy had as open taps are among them,
        and must not be written again under the next identity as if they had been lost. Whatever contradicts
        what is here waits for the hub's word.
        """
        ledger, own = self.presence.ledger, self.presence.identity.replica
        head, again = ledger.own_head(), []
        for block in sorted(map(parse, raws), key=lambda block: block.header.first_seq):
            if (block.header.replica, block.header.previous) == (own, head.hash):
                again.append(block.raw)
                head = block.head
        if again:
            ledger.concede(own, again)

    def _learn(self, answer: Answer) -> None:
        """Keep a newer list of revoked terminals, before anything of the answer is counted."""
        ledger, identity = self.presence.ledger, self.presence.identity
        for message in answer.messages:
            if isinstance(message, DocumentFrame):
                try:
                    revoked_list.take(identity, ledger, message.raw, _certificates(answer))
                except InputRefused as error:
                    raise AnswerRefused(error.code, str(error)) from error

    def _meet(self, answer: Answer) -> bool:
        """Believe the peer's open taps; False when blocks before them, or its certificate, are missing."""
        try:
            self.presence.acquaintances.meet(self.peer, _certificates(answer))
            segments = [message for message in answer.messages if isinstance(message, OpenSegment)]
            return all(self.presence.acquaintances.believe(self.peer, segment) for segment in segments[-1:])
        except UnknownAuthor:
            return False
        except InputRefused as error:
            raise AnswerRefused(error.code, str(error)) from error

    def _lacking(self, mine: Frontier, theirs: Frontier) -> list[Message]:
        """Certificates and blocks that they lack and may take, at most MAX_PUSH_BYTES and one block more."""
        ledger = self.presence.ledger
        authors = ledger.authors()
        frames: list[Message] = []
        room = MAX_PUSH_BYTES
        for gap in missing(mine, theirs):
            if gap.replica in self._stuck or gap.replica not in authors:
                continue
            if room <= 0 or len(frames) >= MAX_PUSH_FRAMES:
                break
            blocks = at_a_time(ledger.blocks_after(gap.after_seq, room, gap.replica), room)
            frames.append(CertificateFrame(authors[gap.replica].encode()))
            frames += [BlockFrame(raw) for raw in blocks]
            room -= sum(map(len, blocks))
        return frames


def _certificates(answer: Answer) -> list[AuthorCertificate]:
    """The certificates in an answer, not verified. Raises AnswerRefused."""
    raws = [message.raw for message in answer.messages if isinstance(message, CertificateFrame)]
    try:
        return [AuthorCertificate.decode(raw) for raw in raws[:MAX_CERTIFICATES]]
    except InputRefused as error:
        raise AnswerRefused(error.code, str(error)) from error
