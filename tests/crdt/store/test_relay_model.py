"""Terminals that relay, fork, concede and restart in any order, against the model in memory.

After every step each view of each card is exact (invariant 6): settled + held + believed, each fact once, by
a bookkeeping of blocks that knows no database; and the books balance (3). At the end everybody meets
everybody: the hub counts every tap that is in any storage exactly once (4, 5), and all digests are one (2).
"""

from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crdt.block import Block, parse
from crdt.certificate import AuthorCertificate, Role, issue
from crdt.columns import decode
from crdt.documents import SignedDocument
from crdt.errors import ForkDetected, Revoked
from crdt.facts import NEW_CARD, CardId, CardState, CardView, Delta, Draft, Kind, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, Want
from crdt.frontier import GENESIS, Head
from crdt.ledger import Ledger
from crdt.open_segment import OpenSegment
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import GONE, verify_page
from crdt.signing import SigningKey
from crdt.store.blocks import authors_of
from crdt.store.hub import HubLedger
from crdt.store.marks import Marks
from crdt.store.terminal import TerminalLedger
from tests.crdt import world
from tests.crdt.store.fleet import card, deltas_of
from tests.simulation.disks import Disk, Image, empty_disk

CARDS = [card(number) for number in range(4)]
NOTHING = Head(0, GENESIS)
EVERYTHING = 1 << 24
BUSES = 3
which = st.integers(0, BUSES - 1)


def nothing_cuts() -> None:
    """The power stays."""


@dataclass
class Books:
    """What a terminal should hold, in blocks and facts."""

    storage: list[int] = field(default_factory=list)  # times of its own taps: each tap has its own
    held: dict[bytes, Block] = field(default_factory=dict)
    open: list[Delta] = field(default_factory=list)
    settled: dict[ReplicaId, Head] = field(default_factory=dict)
    staged: dict[ReplicaId, Head] = field(default_factory=dict)
    believed: dict[ReplicaId, list[Delta]] = field(default_factory=dict)

    def head(self, replica: ReplicaId) -> int:
        """How far a chain is held or settled."""
        last = [block.last_seq for block in self.held.values() if block.header.replica == replica]
        return max([self.settled.get(replica, NOTHING).seq, *last])

    def trim(self) -> None:
        """What is held or settled is not believed any more."""
        for replica, facts in self.believed.items():
            self.believed[replica] = [fact for fact in facts if fact.seq > self.head(replica)]

    def give_way(self, own: set[ReplicaId]) -> None:
        """Drop what cannot follow the settled heads."""
        for replica, head in self.settled.items():
            chain = [block for block in self.held.values() if block.header.replica == replica]
            for block in sorted(chain, key=lambda each: each.header.first_seq):
                last = block.last_seq
                if replica in own or last < head.seq or block.head == head:
                    continue
                before = head if block.header.first_seq == head.seq + 1 else None
                beside = block.header.first_seq <= head.seq or (before and block.header.previous != head.hash)
                orphan = block.header.first_seq > head.seq + 1 and not any(
                    each.hash == block.header.previous for each in self.held.values()
                )
                if beside or orphan:
                    del self.held[block.hash]


class Bus:
    """A terminal, its disk, and the bookkeeping about it."""

    def __init__(self, number: int, disk: Disk) -> None:
        self.disk = disk
        self.author = world.terminal(number)
        self.own = {self.author.key.replica}
        self.books = Books()
        self.kept_marks = b""
        self.starts = 0
        self.images: list[tuple[Image, Books, world.Terminal, set[ReplicaId], bytes]] = []
        self.start()

    def start(self) -> None:
        """As after a power cut: what was believed is forgotten."""
        self.database = self.disk.start(nothing_cuts, eager=True)
        self.books.believed.clear()
        self.marks = Marks(self.kept_marks, self._keep, self._entropy)
        self._open()

    def become(self, author: world.Terminal) -> None:
        """A new identity takes over."""
        self.author = author
        self.own.add(author.key.replica)
        self._open()
        self.books.believed.clear()
        self.look_at_segment()

    def look_at_segment(self) -> None:
        """The facts that the ledger says are open: the numbers are its own choice, the facts are checked."""
        segment = self.ledger.open_segment()
        self.books.open = facts_in(self.author.key.replica, segment)

    def _open(self) -> None:
        key, certificate = self.author.key, self.author.certificate
        self.ledger = TerminalLedger(self.database, world.FLEET_KEY.public_key, key, certificate, self.marks)

    def _keep(self, data: bytes) -> None:
        self.kept_marks = data

    def _entropy(self, length: int) -> bytes:
        self.starts += 1
        return self.starts.to_bytes(length, "big")


class RelayMachine(RuleBasedStateMachine):
    """Three terminals and a hub, doing anything in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.disks = [empty_disk() for _ in range(BUSES + 1)]
        self.buses = [Bus(number, disk) for number, disk in enumerate(self.disks[1:], 1)]
        self.identities = 100
        self.now = 0
        self.distance = 0
        self.hub = HubLedger(
            self.disks[0].start(nothing_cuts, eager=True),
            world.FLEET_KEY.public_key,
            world.HUB_KEY,
            world.HUB,
            entropy=self._entropy,
        )
        self.model = Ledger(world.FLEET_KEY.public_key)  # what the hub counts
        self.cut_offs: dict[ReplicaId, int] = {}
        self.version = 0

    @rule(index=which, which_card=st.sampled_from(CARDS), opening=st.sampled_from([0, 300, 500]))
    def tap(self, index: int, which_card: CardId, opening: int) -> None:
        bus = self.buses[index]
        drafts = [Draft(Kind.OPENING, opening)] if opening else []
        for draft in [*drafts, Draft(Kind.FARE, -100)]:
            self.now += 1
            bus.ledger.transact(which_card, partial(_choose, draft), self.now)
            seq = bus.ledger.status()["head_seq"]
            fact = Delta(bus.author.key.replica, seq, which_card, draft.kind, draft.amount_minor, self.now)
            bus.books.open.append(fact)
            bus.books.storage.append(self.now)

    @rule(index=which)
    def seal(self, index: int) -> None:
        bus = self.buses[index]
        block = bus.ledger.seal()
        assert (block is not None) == (bool(bus.books.open) and not bus.ledger.suspended)
        if block is not None:
            assert list(deltas_of(block)) == bus.books.open
            bus.books.held[block.hash] = block
            bus.books.open = []

    @rule(giver=which, taker=which, max_bytes=st.sampled_from([1, EVERYTHING]))
    def ask(self, giver: int, taker: int, max_bytes: int) -> None:
        bus = self.buses[taker]
        after = {replica: head.seq for replica, head in bus.ledger.frontier().items()}
        frames = self.buses[giver].ledger.answer(Want(after, others=True), max_bytes)
        self._merge(bus, [frame.raw for frame in frames if isinstance(frame, BlockFrame)])
        assert all(isinstance(frame, BlockFrame | CertificateFrame) for frame in frames)

    @rule(giver=which, taker=which, data=st.data())
    def carry(self, giver: int, taker: int, data: st.DataObject) -> None:
        """Some blocks, in any order, with gaps and repetitions: a courier."""
        blocks = list(self.buses[giver].books.held.values())
        if blocks:
            some = data.draw(st.lists(st.sampled_from(blocks), max_size=4))
            self._merge(self.buses[taker], [block.raw for block in some])

    @rule(giver=which, taker=which)
    def believe(self, giver: int, taker: int) -> None:
        bus, peer = self.buses[taker], self.buses[giver]
        if peer.author.key.replica in bus.own:
            return
        bus.ledger.merge([], [peer.author.certificate])
        replica, segment = peer.author.key.replica, peer.ledger.open_segment()
        try:
            if bus.ledger.believe(replica, segment):
                bus.books.believed[replica] = facts_in(replica, segment)
                bus.books.trim()
            self._drop_replaced(bus, {replica})
        except (ForkDetected, Revoked):
            pass  # what it said before counts on

    @rule(index=which)
    def push(self, index: int) -> None:
        """All chains to the hub, as far as it takes them."""
        bus = self.buses[index]
        authors = bus.ledger.authors()
        for replica in bus.ledger.frontier():
            raws = bus.ledger.blocks_after(0, EVERYTHING, replica)
            report = self.hub.merge(raws, [authors[replica]] if replica in authors else []).result()
            told = self.model.merge([block.raw for block in report.added], authors.values())
            assert told.added == report.added
        assert self.model.frontier == self.hub.heads().result()

    @rule(index=which, limit=st.sampled_from([2, 4096]))
    def pull(self, index: int, limit: int) -> None:
        bus = self.buses[index]
        self._tell_revoked(bus)
        page = verify_page(self.hub.page(*bus.ledger.settled(), limit).result(), world.HUB)
        try:
            done = bus.ledger.install(page)
        except ForkDetected:
            assert bus.ledger.contested(page)
            return
        bus.books.staged = {**({} if page.restarts else bus.books.staged), **page.heads}
        if done:
            heads = {**({} if page.base == 0 else bus.books.settled), **bus.books.staged}
            bus.books.settled = {replica: head for replica, head in heads.items() if head != GONE}
            bus.books.staged = {}
            bus.books.give_way(bus.own)
            bus.books.trim()

    @rule(index=which)
    def resolve(self, index: int) -> None:
        """What a sync run does where the hub's chain of an identity of this terminal is another one."""
        bus = self.buses[index]
        mine = bus.ledger.frontier()
        for replica, head in self.model.frontier.items():
            if replica in bus.own and self._differs(bus, replica, head, mine.get(replica, NOTHING)):
                self._concede(bus, replica)
        if bus.ledger.suspended:
            self._concede(bus, bus.author.key.replica)
            self.push(index)
            self._renew(bus)

    @rule(index=which)
    def restart(self, index: int) -> None:
        bus = self.buses[index]
        before = {**bus.ledger.status(), "believed": 0}, bus.ledger.digest(), bus.ledger.settled()
        bus.start()
        assert before == (bus.ledger.status(), bus.ledger.digest(), bus.ledger.settled())

    @rule(index=which)
    def back_up(self, index: int) -> None:
        bus = self.buses[index]
        image = bus.disk.image(), deepcopy(bus.books), bus.author, set(bus.own), bus.kept_marks
        bus.images = [*bus.images[-1:], image]

    @precondition(lambda self: any(bus.images for bus in self.buses))
    @rule(index=which, with_marks=st.booleans())
    def put_back(self, index: int, with_marks: bool) -> None:
        """The image of a backup; or of the whole storage, marks and all, which nobody can notice at once."""
        bus = self.buses[index]
        if not bus.images:
            return
        image, books, author, own, marks = bus.images[-1]
        bus.disk.put_back(image)
        bus.books, bus.author, bus.own = deepcopy(books), author, set(own)
        if with_marks:
            bus.kept_marks = marks
        bus.start()

    @rule(
        index=which,
        hearer=which,
        pushed=st.booleans(),
        with_marks=st.booleans(),
        longer=st.booleans(),
        sealed=st.booleans(),
    )
    def fork(
        self, index: int, hearer: int, pushed: bool, with_marks: bool, longer: bool, sealed: bool
    ) -> None:
        """What it takes: an image with open taps, that are sealed and heard of before it is put back."""
        self.tap(index, CARDS[0], 0)
        self.back_up(index)
        for _ in range(1 + longer):
            self.tap(index, CARDS[1], 0)
            self.seal(index)
        if pushed:
            self.push(index)
        else:
            self.ask(index, hearer, EVERYTHING)
        self.put_back(index, with_marks)
        self.tap(index, CARDS[2], 0)
        if sealed:
            self.seal(index)

    @invariant()
    def every_view_is_exact(self) -> None:
        for bus in self.buses:
            expected = self._believed_by(bus)
            for each in CARDS:
                view = bus.ledger.view(each)
                assert view.known == (each in expected)
                assert view.balance_minor == expected.get(each, NEW_CARD).balance_minor
            assert bus.ledger.books().balance

    @invariant()
    def whoever_is_known_is_on_the_disk(self) -> None:
        for bus in self.buses:
            assert bus.ledger.authors() == bus.database.read_and_wait(authors_of)
            assert bus.ledger.frontier().keys() <= bus.ledger.authors().keys()

    def teardown(self) -> None:
        """Everybody meets everybody, until nothing moves."""
        try:
            self._meet()
        finally:
            for disk in self.disks:
                disk.give_back()

    def _meet(self) -> None:
        for _round in range(4):
            for index in range(BUSES):
                for step in (self.resolve, self.seal, self.push, self.resolve, self.seal, self.push):
                    step(index)
        for _round in range(3):
            for index in range(BUSES):
                self._pull_all(index)
        self.every_view_is_exact()
        counted = Counter(fact.at_ms for fact in self._hub_facts())
        assert max(counted.values(), default=1) == 1
        for bus in self.buses:
            assert not bus.ledger.suspended
            assert set(bus.books.storage) <= counted.keys()
            assert bus.ledger.held()[0] == 0
            assert bus.ledger.digest() == self.hub.digest().result()

    def _pull_all(self, index: int) -> None:
        bus = self.buses[index]
        while True:
            self.pull(index, 4096)
            if (
                bus.ledger.settled()[2]
                == verify_page(self.hub.page(*bus.ledger.settled()).result(), world.HUB).until
                and bus.ledger.status()["position"] == self.hub.totals().result().position
            ):
                return
            self.resolve(index)

    def _believed_by(self, bus: Bus) -> dict[CardId, CardState]:
        books = bus.books
        facts = [
            fact for fact in self._hub_facts() if fact.seq <= books.settled.get(fact.replica, NOTHING).seq
        ]
        for block in books.held.values():
            if block.header.first_seq > books.settled.get(block.header.replica, NOTHING).seq:
                facts += deltas_of(block)
        facts += books.open
        for believed in books.believed.values():
            facts += believed
        cards: dict[CardId, CardState] = {}
        for fact in facts:
            cards[fact.card] = cards.get(fact.card, NEW_CARD).plus(fact.kind, fact.amount_minor)
        return cards

    def _hub_facts(self) -> Iterable[Delta]:
        for replica in self.model.frontier:
            for raw in self.model.blocks_after(replica, 0):
                yield from deltas_of(parse(raw))

    def _merge(self, bus: Bus, raws: list[bytes]) -> None:
        report = bus.ledger.merge(raws, self._certificates())
        for block in report.added:
            assert block.header.first_seq > bus.books.settled.get(block.header.replica, NOTHING).seq
            bus.books.held[block.hash] = block
        bus.books.trim()
        self._drop_replaced(bus, {block.header.replica for block in report.added})

    def _certificates(self) -> list[AuthorCertificate]:
        present = [bus.author.certificate for bus in self.buses]
        return present + [one for bus in self.buses for one in bus.ledger.authors().values()]

    def _drop_replaced(self, bus: Bus, heard: set[ReplicaId]) -> None:
        """Whoever hears a terminal's present identity believes nothing of its other ones."""
        authors = {one.replica: one for one in self._certificates()}
        terminals = {authors[replica].terminal for replica in heard}
        for replica in bus.books.believed.keys() - heard:
            if authors[replica].terminal in terminals:
                bus.books.believed[replica] = []

    def _differs(self, bus: Bus, replica: ReplicaId, theirs: Head, mine: Head) -> bool:
        chain = {block.hash for block in map(parse, self.model.blocks_after(replica, 0))}
        held = [block for block in bus.books.held.values() if block.header.replica == replica]
        return theirs.seq > mine.seq or any(
            block.hash not in chain for block in held if block.header.first_seq <= theirs.seq
        )

    def _concede(self, bus: Bus, replica: ReplicaId) -> None:
        canonical = [parse(raw) for raw in self.model.blocks_after(replica, 0)]
        before = Counter(fact.at_ms for fact in self._own_facts(bus))
        done = bus.ledger.concede(replica, [block.raw for block in canonical])
        for hash_ in done.quarantined:
            assert bus.books.held.pop(hash_) not in canonical
        bus.books.held |= {block.hash: block for block in canonical}
        bus.books.believed.pop(replica, None)
        bus.look_at_segment()
        after = Counter(fact.at_ms for fact in self._own_facts(bus))
        assert after == before | Counter(fact.at_ms for block in canonical for fact in deltas_of(block))
        assert max(after.values(), default=1) == 1

    def _own_facts(self, bus: Bus) -> Iterable[Delta]:
        for block in bus.books.held.values():
            if block.header.replica in bus.own:
                yield from deltas_of(block)
        yield from bus.books.open

    def _renew(self, bus: Bus) -> None:
        """The hub gives a new identity, and closes the chain of the old one where it has come to."""
        old = bus.author.key.replica
        self.cut_offs[old] = self.model.frontier.get(old, NOTHING).seq
        self.version += 1
        assert self.hub.put_document(self._revoked()).result()
        self.identities += 1
        bus.become(self._renewed(bus.author))
        self._tell_revoked(bus)

    def _renewed(self, author: world.Terminal) -> world.Terminal:
        """The same terminal under another key."""
        key = SigningKey(self.identities.to_bytes(32, "big"))
        before = author.certificate
        return world.Terminal(
            key,
            issue(
                world.FLEET_KEY, before.terminal, before.name, Role.TERMINAL, key.public_key, before.limits
            ),
        )

    def _revoked(self) -> SignedDocument:
        body = Revocations(self.cut_offs).encode()
        return SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, self.version, body)

    def _tell_revoked(self, bus: Bus) -> None:
        if self.version and bus.ledger.put_document(self._revoked()):
            for block in list(bus.books.held.values()):
                cut_off = self.cut_offs.get(block.header.replica)
                if cut_off is not None and block.last_seq > cut_off:
                    del bus.books.held[block.hash]
            for replica in self.cut_offs:
                bus.books.believed.pop(replica, None)

    def _entropy(self, length: int) -> bytes:
        self.distance += 1000
        return self.distance.to_bytes(length, "big")


def _choose(draft: Draft, _view: CardView) -> tuple[list[Draft], None]:
    return [draft], None


def facts_in(replica: ReplicaId, segment: OpenSegment) -> list[Delta]:
    """The facts of an open segment."""
    if not segment.count:
        return []
    return list(decode(segment.payload, segment.count).deltas(replica, segment.after.seq + 1))


TestRelay = RelayMachine.TestCase
TestRelay.settings = settings(max_examples=10, stateful_step_count=25)
