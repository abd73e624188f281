"""What the parts of one sync run have in common: the ledger, the way to the hub, and whom it has given up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

from crdt.errors import InputRefused
from crdt.facts import ReplicaId
from crdt.frames import Hello, Message
from crdt.frontier import MAX_FRONTIER, Frontier
from edge.delivery import Delivery, is_dispute, is_for_later
from edge.errors import AnswerRefused, UplinkError
from edge.exchange import Answer
from edge.learning import Learning
from edge.terminal import Enrolment, Terminal

MAX_EXCHANGES = 1_000
"""In one run; what is left then is the next run's. A month of taps takes 200, a million cards 250."""

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
Exchange = Callable[[Sequence[Message]], Awaitable[Answer]]

log = logging.getLogger(__name__)


class Run:
    """One sync run, as one identity after another if it has to be."""

    def __init__(
        self, terminal: Terminal, enrolment: Enrolment, exchange: Exchange, delivery: Delivery, *, retry: bool
    ) -> None:
        self.terminal = terminal
        self.delivery = delivery
        self.refusal: UplinkError | None = None
        """The first that is worth telling."""
        self.skipped: set[ReplicaId] = set() if retry else delivery.doubtful
        """Chains of which no more is sent in this run."""
        self.exchanges = 0
        self.become(enrolment, exchange)

    def become(self, enrolment: Enrolment, exchange: Exchange) -> None:
        """Go on as this identity, over this way to the hub."""
        self.enrolment = enrolment
        self.ledger = enrolment.ledger
        self.identity = enrolment.identity
        self.learning = Learning(self.terminal, enrolment)
        self._exchange = exchange

    @property
    def may_go_on(self) -> bool:
        """Whether another exchange fits in."""
        return self.exchanges < MAX_EXCHANGES

    async def say(self, heads: Frontier, messages: Iterable[Message]) -> Answer:
        """One exchange. Raises UplinkError."""
        self.exchanges += 1
        return await self._exchange([Hello(self.identity.fleet, self.identity.replica, heads), *messages])

    async def use(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something with the ledger, off the event loop. Raises Superseded when it is another's by now."""
        identity = self.identity

        def work() -> T:
            with self.terminal.syncing(identity):
                return step(*args, **kwargs)

        return await asyncio.to_thread(work)

    async def checked(self, step: Callable[[S], T], said: S) -> T:
        """Verify and store one thing the hub said. Raises AnswerRefused."""
        try:
            return await self.use(step, said)
        except InputRefused as error:
            raise AnswerRefused(error.code, str(error)) from error

    async def hear(self, message: Message) -> None:
        """Store a paper of the hub's. One that is not taken keeps nothing back: it is told at the end."""
        try:
            await self.checked(self.learning.learn, message)
        except AnswerRefused as error:
            self.refusal = self.refusal or error

    async def own_replicas(self) -> set[ReplicaId]:
        """The identities of this terminal, now and before, and those that its storage had of another one.

        A copy of a terminal's storage may have been paired under a name of its own.
        """
        return await self.storages_replicas() | await self.terminals_replicas()

    async def storages_replicas(self) -> set[ReplicaId]:
        """The identities that this storage had before, of whichever terminal."""
        return {*await self.use(self.ledger.former, MAX_FRONTIER)}

    async def terminals_replicas(self) -> set[ReplicaId]:
        """The identities of this terminal, now and before, also those that this storage never had."""
        authors = await self.use(self.ledger.authors)
        terminal = self.identity.certificate.terminal
        return {replica for replica, author in authors.items() if author.terminal == terminal}

    def give_up(self, replica: ReplicaId, error: UplinkError) -> None:
        """Send no more of this chain in this run. A dispute about another identity's is no failure, and that
        the hub takes no more of it now, or shows it only later, is not even a dispute."""
        self.skipped.add(replica)
        if replica != self.identity.replica and is_for_later(error):
            self.delivery.later.add(replica)
        elif replica == self.identity.replica or not is_dispute(error):
            self.refusal = self.refusal or error
        elif self.delivery.disputed.get(replica) != str(error):
            log.warning("blocks of %s are disputed: %s", replica.hex(), error)
            self.delivery.disputed[replica] = str(error)
