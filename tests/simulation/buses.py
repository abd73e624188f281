"""A terminal on a bus: a real ledger, the real decision and clock, and the real sync run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from crdt.block import contents, parse
from crdt.documents import SignedDocument
from crdt.facts import CardId, CardView, Context, Delta, Draft, Kind, ReplicaId, TerminalId
from crdt.store.marks import Marks
from crdt.store.terminal import TerminalLedger
from crdt.terminal_document import TerminalDocument
from edge.clock import Reading, TerminalClock
from edge.comparing import take_up
from edge.decide import Accepted, Verdict, decide
from edge.errors import UplinkError
from edge.report import MAX_FORMER
from edge.sync import Delivery, Exchange, Outcome, Sync
from tests.simulation.authors import FARES, HOME, Author, author, settings_in
from tests.simulation.disks import empty_disk
from tests.simulation.identities import Branch, Card, Identity, Promised
from tests.simulation.inline_loop import InlineLoop
from tests.simulation.oracle import NOTHING, Fact, Oracle, Snapshot, expect
from tests.simulation.power import Power, PowerCut
from tests.simulation.retention import Retention, Span
from tests.simulation.wall import Wall

ROUTE: Final = "12"
_OPEN: Final = "SELECT * FROM open_delta ORDER BY seq"
_OPEN_SEQ: Final = "SELECT seq FROM open_delta"
_STANDS: Final = "SELECT series, position FROM terminal"
_LAST: Final = "SELECT coalesce(max(last_seq), 0) FROM block WHERE replica = ?"
_BEYOND: Final = "SELECT raw FROM block WHERE replica = ? AND last_seq > ? ORDER BY first_seq"


class Bus:
    """One terminal. Also what the sync run asks of `edge.terminal.Terminal` and of an `Enrolment`."""

    document = TerminalDocument.new(TerminalId(bytes(16)))  # of any terminal that nobody has set anything of

    def __init__(self, number: int, oracle: Oracle, loop: InlineLoop, now_ms: int) -> None:
        self.number = number
        self.name = f"bus{number}"
        self.power = Power(self.name)
        self.disk = empty_disk()
        self.wall = Wall(now_ms)
        self.author = author(number)
        self.replicas = [self.author.replica]
        self.fares = FARES[0]
        self.fares_version = 0
        self.delivery = Delivery()
        self.marks = b""
        self.promised: Promised | None = None  # what the hub has given, and it has not taken up
        self.branch: Branch | None = None  # what it writes that other storage has written differently
        self.believed: dict[ReplicaId, tuple[int, int]] = {}  # of peers, from where to where
        self.copy: Card | None = None
        self.retention = Retention()
        self.was_restored = False
        self.lost: list[bytes] = []  # blocks of an identity that ended, which nobody has brought to the hub
        self._out_of_reach: list[bytes] = []  # the same while it has not ended
        self._paired_as = 0  # which of its identities the last pairing gave it
        self._nonces = 0
        self._branches = 0
        self._revoked: set[ReplicaId] = set()  # as far as the last look knew
        self._oracle = oracle
        self._loop = loop
        self._clock_epoch = 0
        self._last = Reading(0, 0, 0)
        oracle.begin(self.author.replica, [])
        oracle.acknowledge(self.author.replica)
        self.start()

    # ---- What edge.sync sees ----

    @property
    def enrolment(self) -> Bus:
        """The terminal is its own enrolment."""
        return self

    @contextmanager
    def syncing(self, identity: Identity) -> Iterator[None]:
        """Nobody pairs it meanwhile."""
        expect(identity is self.identity, "a sync run went on as an earlier identity")
        yield

    def adopt(self, document: SignedDocument) -> bool:
        """See edge.terminal.Terminal.adopt."""
        fares = settings_in(document.body)
        if document.version <= self.fares_version:
            return False
        self.ledger.put_document(document)
        self.fares, self.fares_version = fares, document.version
        return True

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
    def writes_as(self) -> ReplicaId:
        """Under which name the oracle keeps what it writes now."""
        return self.replica if self.branch is None else self.branch.name

    def start(self) -> None:
        """Start the program on what is on the disk."""
        self._boot()
        self._find()

    def _boot(self) -> None:
        self.identity = Identity(self.author)
        self.delivery = Delivery()
        self.believed = {}
        self.database = self.disk.start(self._committing, eager=False)
        self._open_ledger()

    def _find(self) -> None:
        """Compare what is there after a start with the truth, and set the clock by it."""
        if self.branch is None:
            self._oracle.found(self.replica, self.ledger.status()["head_seq"])
        else:
            self._oracle.found(self.branch.name, len(self._local()[1]))
        self._clock_epoch += 1
        self.clock = TerminalClock(
            floor_ms=self.ledger.last_at_ms() or 0,
            epoch=self._clock_epoch,
            save_epoch=self._save_epoch,
            wall_ms=lambda: self.wall.wall_ms,
            elapsed_ms=lambda: self.wall.elapsed_ms,
            synchronised_ms=lambda: self.wall.synchronised_ms,
        )

    def pair_anew(self) -> None:
        """Give the terminal its next identity; what the old one wrote stays to be sent."""
        self.ledger.retire()
        self._become(self.next_author)
        self._paired_as = len(self.replicas) - 1
        self._out_of_reach = []
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
        self.promised = Promised(Identity(self.next_author), tuple(self.replicas))

    def renew(self) -> None:
        """Go on as a new identity, which takes over what the suspended one could not seal."""
        self.lost, self._out_of_reach = self.lost + self._out_of_reach, []
        before, promised, copy, self.promised = self.replica, self.promised, self.copy, None
        assert promised is not None
        sealed = self.disk.rows("SELECT coalesce(max(seq), 0) FROM head WHERE replica = ?", before)[0][0]
        self._become(promised.identity.author)
        self.copy = copy if copy is not None and copy.promised is promised else None
        self.identity = promised.identity
        self.believed = {}
        try:
            self._open_ledger()
        except PowerCut:  # the start after it takes over what this one did not
            self._boot()
            self._took_over(before, sealed)
            raise
        self._took_over(before, sealed)

    def _took_over(self, before: ReplicaId, sealed: int) -> None:
        """What the new identity has is what the old one could not seal: some of it known, some apart.

        Where other storage has written as it already, as the hub knows, all that is another branch again.
        """
        apart = [] if self.branch is None else self._oracle.facts[self.branch.name]
        moved = [*self._oracle.facts[before][sealed:], *apart]
        facts = [fact_of(row) for row in self.disk.rows(_OPEN)]
        known, reach = self._oracle.facts[self.replica], self._oracle.hub.reach
        others = [  # by an identity that a copy was promised, and other storage has taken up
            fact
            for kin in {*self.replicas} - {before, self.replica}
            for fact in self._oracle.facts[kin][: reach.get(kin, 0)]
        ]
        expect(
            Counter(facts) == Counter(moved) - Counter([*known, *others]),
            f"{self.name} took over {facts}, not {moved}",
        )
        del self._oracle.facts[before][sealed:]
        self.branch = None
        if known:
            self._go_apart(facts)
        else:
            self._oracle.begin(self.replica, facts)
            self._oracle.acknowledge(self.replica)

    def _go_apart(self, facts: list[Fact]) -> None:
        self._branches += 1
        self.branch = Branch(ReplicaId(b"branch %d %d" % (self.number, self._branches)))
        self._oracle.facts[self.branch.name] = list(facts)

    def copy_storage(self) -> None:
        """Make an image of the SD card; of restored storage only while an identity is promised."""
        if self.branch is None or self.promised is not None:
            facts = len(self._oracle.facts[self.replica])
            image, who = self.disk.image(), self.author
            retention = Retention(self.retention.since)
            self.copy = Card(image, self.marks, self.fares_version, facts, who, self.promised, retention)

    def restore_storage(self, held_elsewhere: int, *, with_marks: bool) -> None:
        """Put the image in and start; `held_elsewhere`: how far somebody else has this identity's chain.

        Facts that were in the storage taken out, and nowhere else, are gone with it. `with_marks`: the whole
        card was copied, so the terminal itself cannot know. Where it was made with a promise that has been
        taken up since, the terminal is the identity before once more, and that one's number 1 is given.
        """
        copy, self.was_restored = self.copy, True
        assert copy is not None
        taken_up = self.author is not copy.author
        sealed = self.sealed(held_elsewhere)
        self.disk.put_back(copy.image)
        kept = self.sealed(held_elsewhere)
        lasts = taken_up and not held_elsewhere  # the hub never ends what it never heard of
        self._out_of_reach = [] if lasts else [raw for raw in sealed if raw not in kept]
        if with_marks:
            self.marks = copy.marks
        self.fares_version = copy.fares_version
        self.retention = Retention(copy.retention.since)
        self.fares = FARES[(copy.fares_version - 1) % len(FARES)]
        facts = self._oracle.facts[self.replica]
        last_seq = held_elsewhere if taken_up else max(copy.facts, held_elsewhere)
        for seq in range(last_seq + 1, len(facts) + 1):
            del self._oracle.named[self.replica, seq]  # nobody ever saw them
        del facts[last_seq:]
        self.author, self.promised = copy.author, copy.promised
        self._boot()
        behind = held_elsewhere > copy.facts
        expect(
            self.ledger.suspended or with_marks or not behind,
            f"{self.name} did not notice that its storage is old",
        )
        if self.ledger.suspended or behind:
            self._go_apart(self._local()[1] if copy.promised is not None else [])
        self._find()

    def tap(self, card: CardId) -> Verdict:
        """Present a card, as edge.taps does: decide, commit, and only then say so."""
        now = self.clock.read()
        self._check_time(now)
        context = Context(route=ROUTE, trip=self.name, clock_epoch=now.epoch, clock_error_ms=now.error_ms)

        def choose(view: CardView) -> tuple[tuple[Draft, ...], Verdict]:
            if view.last_fare_at_ms is not None:
                view = view._replace(last_fare_at_ms=self.clock.as_now(view.last_fare_at_ms))
            verdict = decide(view, self.fares, ROUTE, now.at_ms)
            drafts = verdict.drafts if isinstance(verdict, Accepted) else ()
            facts = [Fact(card, draft.kind, draft.amount_minor, now.at_ms, context) for draft in drafts]
            self._oracle.begin(self.writes_as, facts)
            return drafts, verdict

        verdict = self.ledger.transact(card, choose, now.at_ms, context)
        self._check_green(self._oracle.acknowledge(self.writes_as))
        return verdict

    def prune(self, retention_ms: int, keep_deltas: int) -> None:
        """Forget what has been settled for so long, but for the last facts."""
        now_ms, before = self.clock.read().at_ms, self.blocks()
        self.retention.look(before, self.installed().reach, now_ms)
        self.ledger.prune(now_ms, retention_ms, keep_deltas)
        self.retention.check(before - self.blocks(), now_ms, retention_ms)

    def sync(self, exchange: Exchange, renew: Callable[[], None]) -> Outcome | UplinkError:
        """One run against the hub, to the end or until something stops it.

        `renew`: have the hub give it its next identity. Raises UplinkError.
        """

        async def renewed(_written_again: Sequence[bytes]) -> Exchange:
            renew()
            self._promise()
            return exchange

        run = Sync(cast(Any, self), cast(Any, self), exchange, self._describe, self.delivery, renew=renewed)
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
        return author(self.number, len(self.replicas))

    @property
    def since_pairing(self) -> frozenset[ReplicaId]:
        """The identities that end with a renewal."""
        return frozenset(self.replicas[self._paired_as :])

    def sealed(self, after_seq: int) -> list[bytes]:
        """This identity's blocks on the disk beyond a number."""
        return [raw for (raw,) in self.disk.rows(_BEYOND, self.replica, after_seq)]

    # ---- Promises ----

    def reach(self) -> dict[ReplicaId, int]:
        """How far the disk has every replica's facts."""
        return {replica: max(last for _, last in parts) for replica, parts in self.spans().items() if parts}

    def spans(self) -> dict[ReplicaId, list[tuple[int, int]]]:
        """Which facts are on the disk, the open segment included; what is settled need not be."""
        spans: dict[ReplicaId, list[tuple[int, int]]] = {}
        for replica, first, last in sorted(self.blocks()):
            spans.setdefault(replica, []).append((first, last))
        if self.branch is not None:
            common, apart = self._local()
            mine = [(seq, seq) for seq in sorted(common)]
            return {**spans, self.replica: mine, self.branch.name: [(1, len(apart))]}
        spans.setdefault(self.replica, []).extend((seq, seq) for (seq,) in self.disk.rows(_OPEN_SEQ))
        return spans

    def installed(self) -> Snapshot:
        """The settlement that shows."""
        series, position = self.disk.rows(_STANDS)[0]
        if position == 0:
            return Snapshot()
        snapshot = self._oracle.history.get((series, position))
        expect(snapshot is not None, f"{self.name} has position {position}, which no hub ever had")
        assert snapshot is not None
        return snapshot

    def agrees(self) -> bool:
        """Whether the hub has all of this ledger, evidence too, and the newest settlement shows; not so while
        it needs a new identity, under which it may write something again."""
        given = self.ledger.held()[0] == 0 and not self.ledger.quarantined(1)
        return given and not self.ledger.suspended and self.installed() == self._oracle.hub

    def believe(self, peer: Bus) -> None:
        """Count what a peer has written and not sealed, until either of the two starts again."""
        segment = peer.ledger.open_segment()
        if self.ledger.believe(peer.replica, segment):
            self.believed[peer.replica] = segment.after.seq + 1, segment.after.seq + segment.count

    def forget(self, peer: ReplicaId) -> None:
        """The peer is not what it was."""
        self.ledger.forget(peer)
        self.believed.pop(peer, None)

    def check(self, cards: Iterable[CardId]) -> None:
        """The view of these cards, and the sums of what is held, are exactly what they have to be."""
        self._hear_of_revoked()
        settled, spans = self.installed(), self.spans()
        seen = dict(spans)
        for replica, part in self.believed.items():
            seen[replica] = [*seen.get(replica, ()), part]
        states = self._oracle.believed(settled, seen)
        for card in cards:
            view = self.ledger.view(card)
            state = states.get(card, NOTHING)
            expect(
                view.balance_minor == sum(state),
                f"{self.name} believes {view.balance_minor} of {card.hex()}, not {sum(state)}",
            )
            refused = card in settled.listed or card in settled.overdrawn
            expect(view.hotlisted == refused, f"{self.name} has {card.hex()} listed wrongly")
        held = self._oracle.held(settled, spans)
        told = self.ledger.held()
        expect(told == (len(held), sum(fact.amount_minor for fact in held)), f"{self.name} holds {told}")

    def _committing(self) -> None:
        """What a settlement includes is not believed any more, also where an older one replaces it again."""
        self.power()
        settled = self._oracle.history.get(self.disk.rows(_STANDS)[0]) if self.believed else None
        if settled is not None:  # else a hub that has just started has not told that position yet
            reach = settled.reach
            self.believed = {
                replica: (max(first, reach.get(replica, 0) + 1), last)
                for replica, (first, last) in self.believed.items()
                if last > reach.get(replica, 0)
            }

    def _hear_of_revoked(self) -> None:
        """Nothing counts here of a revoked author beyond its cut-off, once this terminal has the list."""
        cut_offs = self.ledger.revocations().cut_offs
        for replica in cut_offs.keys() - self._revoked:
            self.believed.pop(replica, None)
        self._revoked = set(cut_offs)
        for replica, cut_off in cut_offs.items():
            last = self.disk.rows(_LAST, replica)[0][0]
            expect(last <= cut_off, f"{self.name} counts {last} facts of somebody revoked after {cut_off}")

    def _check_green(self, count: int) -> None:
        """What was just acknowledged is on the disk (invariant 1)."""
        if count:
            row = self.disk.rows(_OPEN + " DESC LIMIT 1")[0]
            last = self._oracle.facts[self.writes_as][-1]
            expect(fact_of(row) == last, f"{self.name} said yes to what is not on its disk")
        expect(not self.disk.in_transaction, f"{self.name} said yes before its commit")

    def _check_time(self, now: Reading) -> None:
        if now.epoch == self._last.epoch:
            expect(now.at_ms >= self._last.at_ms, f"the time of {self.name} ran backwards within an epoch")
        self._last = now

    def _become(self, who: Author) -> None:
        self.author = who
        self.identity = Identity(self.author)
        self.replicas += [who.replica] if who.replica not in self.replicas else []
        self.copy = None
        self._oracle.begin(self.replica, [])
        self._oracle.acknowledge(self.replica)

    def _open_ledger(self) -> None:
        marks = Marks(self.marks, self._put_marks, self._nonce)
        who = self.author
        self.ledger = TerminalLedger(self.database, HOME.root.public_key, who.key, who.certificate, marks)

    def blocks(self) -> set[Span]:
        """What is on the disk of the record."""
        rows = self.disk.rows("SELECT replica, first_seq, last_seq FROM block")
        return {(replica, first, last) for replica, first, last in rows}

    def _local(self) -> tuple[set[int], list[Fact]]:
        """What the disk has of what everybody has of this identity, and what it has beside that.

        What the identity that ended had sealed is written again, under other numbers, until the next one has
        it; where the terminal knows that it has ended, some may be in quarantine.
        """
        facts = self._oracle.facts[self.replica]
        first = min((first for replica, first, _ in self.blocks() if replica == self.replica), default=1)
        common = set(range(1, first))  # it has forgotten them, because they are settled
        apart = []
        for delta in self._written():
            fact = Fact(delta.card, delta.kind, delta.amount_minor, delta.at_ms, delta.context)
            if delta.seq <= len(facts) and facts[delta.seq - 1] == fact:
                common.add(delta.seq)
            else:
                apart.append(fact)
        again = {seq for seq, fact in enumerate(facts, 1) if seq not in common and fact in apart}
        apart = [fact for fact in apart if fact not in {facts[seq - 1] for seq in again}]
        whole = self.replica in self.ledger.revocations().cut_offs or common | again == set(
            range(1, max(common | again, default=0) + 1)
        )
        expect(whole, f"{self.name} lacks facts between those that it has")
        return common | again, apart

    def _written(self) -> Iterator[Delta]:
        rows = self.disk.rows("SELECT raw FROM block WHERE replica = ? ORDER BY first_seq", self.replica)
        for (raw,) in rows:
            block = parse(raw)
            yield from contents(block).deltas(self.replica, block.header.first_seq)
        for row in self.disk.rows(_OPEN):
            yield Delta(self.replica, row[0], *fact_of(row))

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

    def _save_epoch(self, epoch: int) -> None:
        self._clock_epoch = epoch


def fact_of(row: tuple[Any, ...]) -> Fact:
    """The fact in a row of the open segment."""
    _seq, card, kind, amount_minor, at_ms, *place = row
    return Fact(card, Kind(kind), amount_minor, at_ms, Context(*place))
