"""A terminal on a bus: a real ledger, the real decision and clock, and the real sync run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, cast

from crdt.documents import SignedDocument
from crdt.facts import CardId, ReplicaId, TerminalId
from crdt.frames import Message
from crdt.store.marks import Marks
from crdt.store.terminal import TerminalLedger
from crdt.terminal_document import TerminalDocument
from edge.comparing import take_up
from edge.decide import Verdict
from edge.errors import UplinkError
from edge.exchange import Answer
from edge.report import MAX_FORMER
from edge.sync import Delivery, Exchange, Outcome, Sync
from tests.simulation.apart import Apart
from tests.simulation.authors import HOME, Author, author
from tests.simulation.beliefs import Beliefs
from tests.simulation.disks import empty_disk
from tests.simulation.identities import Branch, Identity, Promised
from tests.simulation.inline_loop import InlineLoop
from tests.simulation.oracle import Oracle, expect
from tests.simulation.power import Power, PowerCut
from tests.simulation.records import Record, Spans
from tests.simulation.retention import Retention
from tests.simulation.storage import Storage
from tests.simulation.taps import Taps
from tests.simulation.wall import Wall

_SEALED: Final = "SELECT coalesce(max(seq), 0) FROM head WHERE replica = ?"


class Bus:
    """One terminal. Also what the sync run asks of `edge.terminal.Terminal` and of an `Enrolment`."""

    document = TerminalDocument.new(TerminalId(bytes(16)))  # of any terminal that nobody has set anything of

    def __init__(self, number: int, oracle: Oracle, loop: InlineLoop, now_ms: int) -> None:
        self.number = number
        self.name = f"bus{number}"
        self.power = Power(self.name)
        self.disk = empty_disk()
        self.record = Record(self.disk, oracle)
        self.beliefs = Beliefs(self, oracle)
        self.wall = Wall(now_ms)
        self.author = author(number)
        self.replicas = [self.author.replica]
        self.taps = Taps(self, oracle)
        self.delivery = Delivery()
        self.marks = b""
        self.promised: Promised | None = None  # what the hub has given, and it has not taken up
        self.apart = Apart(self, oracle)
        self.storage = Storage(self, oracle)
        self.retention = Retention()
        self.forgotten: list[Author] = []  # what it was promised by a hub that was put back since
        self._paired_as = 0  # which of its identities the last pairing gave it
        self._nonces = 0
        self._oracle = oracle
        self._loop = loop
        oracle.begin(self.author.replica, [])
        oracle.acknowledge(self.author.replica)
        self.start()

    # ---- What edge.sync sees ----

    @property
    def enrolment(self) -> Bus:
        """The terminal is its own enrolment."""
        return self

    @property
    def fares_version(self) -> int:
        """Of the settings that it goes by; 0 for none from a hub."""
        return self.taps.fares_version

    def syncing(self, identity: Identity) -> AbstractContextManager[None]:
        """Nobody pairs it meanwhile."""
        expect(identity is self.identity, "a sync run went on as an earlier identity")
        return nullcontext()

    def adopt(self, document: SignedDocument) -> bool:
        """See edge.terminal.Terminal.adopt."""
        return self.taps.adopt(document)

    def enrol(self, identity: Identity, instead_of: Identity) -> None:
        """See edge.terminal.Terminal.enrol."""
        assert self.promised is not None
        expect((identity, instead_of) == (self.promised.identity, self.identity), "it is enrolled as another")
        self.ledger.retire()
        self.renew()

    # ---- What happens to it ----

    @property
    def replica(self) -> ReplicaId:
        """Who it writes as now."""
        return self.author.replica

    @property
    def branch(self) -> Branch | None:
        """What it writes that other storage has written differently."""
        return self.apart.branch

    @property
    def writes_as(self) -> ReplicaId:
        """Under which name the oracle keeps what it writes now."""
        return self.replica if self.branch is None else self.branch.name

    def start(self) -> None:
        """Start the program on what is on the disk."""
        self.boot()
        self.find()

    def boot(self) -> None:
        """Start it, and do not compare what it finds."""
        self.identity = Identity(self.author)
        self.delivery = Delivery()
        self.beliefs.start()
        self.database = self.disk.start(self._committing, eager=False)
        self._open_ledger()

    def find(self) -> None:
        """Compare what is there after a start with the truth, and set the clock by it."""
        if self.branch is None:
            self._oracle.found(self.replica, self.ledger.status()["head_seq"])
        else:
            self.apart.find(self.branch)
        self.taps.start()

    def pair_anew(self) -> None:
        """Give the terminal its next identity; what the old one wrote stays to be sent."""
        self.ledger.retire()
        self._become(self.next_author)
        self._paired_as = len(self.replicas) - 1
        self.storage.is_paired()
        self.start()

    def pair_restored(self, exchange: Exchange, enrol: Callable[[], None]) -> None:
        """The same with a suspended one, as edge.enrolling does. `enrol`: have the hub give it that identity,
        which ends the others. Raises UplinkError; then it takes up in its next sync run what it was promised.
        """
        enrol()
        self._promise()
        self._paired_as = len(self.replicas)
        self._loop.run(take_up(cast(Any, self), cast(Any, self.promised), exchange))

    def promise(self, renew: Callable[[], None]) -> None:
        """The same by a renewal, and before it has taken anything up it is out of reach."""
        renew()
        self._promise()

    def _promise(self) -> None:
        forgotten = [one.replica for one in self.forgotten]
        self.promised = Promised(Identity(self.next_author), (*self.replicas, *forgotten))

    def renew(self) -> None:
        """Go on as a new identity, which takes over what the suspended one could not seal."""
        before, promised, copy, self.promised = self.replica, self.promised, self.storage.copy, None
        assert promised is not None
        self.storage.end(promised.identity.replica)
        sealed = self.disk.rows(_SEALED, before)[0][0]
        self._become(promised.identity.author)
        self.storage.copy = copy if copy is not None and copy.promised is promised else None
        self.identity = promised.identity
        self.beliefs.start()
        try:
            self._open_ledger()
        except PowerCut:  # the start after it takes over what this one did not
            self.boot()
            self.apart.taken_over(before, sealed)
            raise
        self.apart.taken_over(before, sealed)

    def tap(self, card: CardId) -> Verdict:
        """Present a card."""
        return self.taps.tap(card)

    def prune(self, retention_ms: int, keep_deltas: int) -> None:
        """Forget what has been settled for so long, but for the last facts."""
        now_ms, before = self.taps.clock.read().at_ms, self.record.blocks()
        self.retention.look(before, self.beliefs.installed().reach, now_ms)
        self.ledger.prune(now_ms, retention_ms, keep_deltas)
        self.retention.check(before - self.record.blocks(), now_ms, retention_ms)

    def sync(
        self, exchange: Exchange, as_before: Exchange, renew: Callable[[], None]
    ) -> Outcome | UplinkError:
        """One run against the hub, to the end or until something stops it.

        `as_before`: the way there as what it is until it takes up what it was promised. `renew`: have the hub
        give it its next identity. Raises UplinkError.
        """

        async def former() -> Exchange:
            return as_before

        async def renewed(_written_again: Sequence[bytes]) -> Exchange:
            if self.promised is not None and self.promised.identity.author not in self.forgotten:
                self.forgotten.append(self.promised.identity.author)
            renew()
            self._promise()
            return exchange

        async def watched(messages: Sequence[Message]) -> Answer:
            self.check_nothing_is_missing()  # passengers tap meanwhile
            return await exchange(messages)

        described = self._describe, self.delivery
        run = Sync(cast(Any, self), cast(Any, self), watched, *described, renew=renewed, former=former)
        try:
            return self._loop.run(run.run())
        except UplinkError as error:
            return error

    @property
    def speaks_as(self) -> ReplicaId:
        """Who it is to the hub."""
        return self.replica if self.promised is None else self.promised.identity.replica

    @property
    def names(self) -> list[ReplicaId]:
        """All under which the oracle keeps what counts of what it wrote."""
        return [*self.replicas, *([] if self.branch is None else [self.branch.name])]

    @property
    def next_author(self) -> Author:
        """Who it writes as once it is paired or renewed."""
        return author(self.number, len(self.replicas) + len(self.forgotten))

    @property
    def since_pairing(self) -> frozenset[ReplicaId]:
        """The identities that end with a renewal."""
        return frozenset(self.replicas[self._paired_as :])

    @property
    def is_stopped(self) -> bool:
        """Whether an operator has ended its identity, as far as it knows."""
        return self.replica in self.ledger.revocations().revoked

    # ---- Promises ----

    def reach(self) -> dict[ReplicaId, int]:
        """How far the disk has every replica's facts."""
        return {replica: max(last for _, last in parts) for replica, parts in self.spans().items() if parts}

    def spans(self) -> Spans:
        """Which facts are on the disk, the open segment included; what is settled need not be."""
        if self.branch is None:
            return self.record.spans(self.replica)
        return self.record.spans_apart(self.replica, self.branch.name, stopped=self.is_stopped)

    def agrees(self) -> bool:
        """Whether the hub has all of this ledger, evidence too, and the newest settlement shows; not so while
        it needs a new identity, under which it may write something again."""
        given = self.ledger.held()[0] == 0 and not self.ledger.quarantined(1)
        return given and not self.ledger.suspended and self.beliefs.installed() == self._oracle.hub

    def check(self, cards: Iterable[CardId]) -> None:
        """See Beliefs."""
        self.beliefs.check(cards)

    def check_nothing_is_missing(self) -> None:
        """What it wrote as what it is counts here, or the hub has it by another of its identities; whatever a
        list of revocations says, unless an operator has stopped it."""
        if self.is_stopped:
            return
        if self.branch is None:
            here, written = self.reach().get(self.replica, 0), len(self._oracle.facts[self.replica])
            settled = self.beliefs.installed().reach.get(self.replica, 0)
            expect(max(here, settled) == written, f"{self.name} has {here} of {written} facts")
        else:
            self.apart.check_nothing_is_missing(self.branch)

    def _committing(self) -> None:
        self.power()
        self.beliefs.committing()

    def _become(self, who: Author) -> None:
        self.author = who
        self.identity = Identity(self.author)
        self.replicas += [who.replica] if who.replica not in self.replicas else []
        self.storage.copy = None
        self._oracle.begin(self.replica, [])
        self._oracle.acknowledge(self.replica)

    def _open_ledger(self) -> None:
        marks = Marks(self.marks, self._put_marks, self._nonce)
        who = self.author
        self.ledger = TerminalLedger(self.database, HOME.root.public_key, who.key, who.certificate, marks)

    def _describe(self) -> dict[str, Any]:
        """As edge.report does it, as far as a hub reads it."""
        former = [replica.hex() for replica in self.ledger.former(MAX_FORMER)]
        return {**self.ledger.status(), "former": former}

    def _put_marks(self, data: bytes) -> None:
        self.power()
        self.marks = data
        self.power()

    def _nonce(self, length: int) -> bytes:
        self._nonces += 1
        return self._nonces.to_bytes(length, "big")
