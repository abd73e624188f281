"""The depot: a real hub ledger behind the hub's real sync handler, on a disk that can be put back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, TypeVar, cast

from crdt.documents import SignedDocument
from crdt.errors import ComeAgain, InputRefused, UnknownAuthor
from crdt.facts import NO_CONTEXT, CardId, Draft, Kind, ReplicaId
from crdt.frames import Refusal
from crdt.revocations import Revocations
from crdt.session import Refused, Session
from crdt.store.amending import Amendment
from crdt.store.hub import Change, HubLedger
from crdt.store.markkeeper import InlineKeeper
from crdt.store.marks import Marks
from hub.answering import Answerer
from hub.events import EventBus
from hub.heard import Heard
from hub.recalling import Recall
from hub.registry import Registry
from hub.restoring import take_new_key
from hub.revoking import Revoker
from tests.simulation.adoptions import Adoptions, Branch, Said, facts_in
from tests.simulation.audits import Audit
from tests.simulation.authors import HOME, Author, hub_author
from tests.simulation.disks import Image, empty_disk
from tests.simulation.documents import Documents
from tests.simulation.evidence import Evidence
from tests.simulation.inline_loop import InlineLoop
from tests.simulation.oracle import Fact, Oracle, Snapshot, expect
from tests.simulation.power import Power

T = TypeVar("T")

_MET: Final = "SELECT 1 FROM author WHERE replica = ?"
_BEING_CUT: Final = "SELECT replica FROM cut"


@dataclass(frozen=True)
class Backup:
    """A copy of the hub's disk, and what was true when it was taken."""

    image: Image
    snapshot: Snapshot
    author: Author  # the key that is in it
    marks: bytes  # what lay beside it
    requests: frozenset[str]
    fares: int
    floor_minor: int
    branches: Mapping[ReplicaId, Branch]  # its own chains: that of an identity may be another one by then


class Hub:
    """The one hub of a world."""

    def __init__(self, oracle: Oracle, loop: InlineLoop, page_rows: int, seed: int) -> None:
        """`seed`: of all that it draws by chance."""
        self.page_rows = page_rows
        self.power = Power("hub")
        self.disk = empty_disk()
        self.requests: set[str] = set()
        self.put_back = False  # whether its disk ever was
        self.unaware = False  # whether its marks ever were, too
        self.documents = Documents(self)
        self.refusals: list[InputRefused] = []  # in the last answer
        self._identities: set[ReplicaId] = set()  # all that it has ever had
        self._forgotten: set[ReplicaId] = set()  # of what it had promised before it was put back
        self.author = HOME.hub
        self.marks = b""  # what is in the file beside the ledger, which no backup holds
        self._keys = 1
        self._seed = seed
        self._drawn = 0  # also what it drew before it was put back: chance does not go back with a disk
        self._oracle = oracle
        self._loop = loop
        self._request = ""  # the last one that was tried
        self.evidence = Evidence(self.disk)
        self._audit = Audit(self.disk, oracle)
        self.start()

    @property
    def replica(self) -> ReplicaId:
        """Who writes the hub's own facts."""
        return self.ledger.replica

    @property
    def now_ms(self) -> int:
        """What its clock shows, which is right."""
        return self._oracle.now_ms

    @property
    def floor_minor(self) -> int:
        """Below which a card is overdrawn."""
        return self._audit.floor_minor

    @property
    def adoptions(self) -> Adoptions:
        """What it wrote of its own accord."""
        return self._audit.adoptions

    @property
    def revocations(self) -> Revocations:
        """Who is revoked, or was replaced."""
        return self.documents.revocations

    @property
    def cut_offs(self) -> Mapping[ReplicaId, int]:
        """Of the revoked, and of identities that were replaced."""
        return self.revocations.cut_offs

    def start(self) -> None:
        """Start the program on what is on the disk."""
        self.database = self.disk.start(self.power, eager=False)
        self.ledger = self._opened()
        renewed = self.ledger.restored
        if renewed:
            take_new_key(self.database, self.replica, lambda seed: seed, self.now_ms, self._entropy)
            self.ledger.close()
            self.author = hub_author(HOME.name, self._keys)
            self._keys += 1
            self.ledger = self._opened()
        expect(not self.ledger.restored, "a hub with a new key counts as put back")
        self.ledger.on_commit(self._committed)
        self._recall = Recall(
            self.ledger,
            Registry(self.database),
            EventBus(),
            self.documents.sealer,
            _done,
            lambda: self.now_ms,
        )
        self._answerer = Answerer(
            self.ledger, self.page_rows, _done, now_ms=lambda: self.now_ms, lost=self._recall
        )
        self._identities.add(self.replica)
        written = len(self._oracle.facts.get(self.replica, ()))
        self._oracle.facts.setdefault(self.replica, [])
        self._audit.look(self.replica)
        self._audit.listing = None
        self.documents.read()
        self._oracle.found(self.replica, self._oracle.hub.reach.get(self.replica, 0))
        if len(self._oracle.facts[self.replica]) > written:
            self.requests.add(self._request)
        self.documents.sign_again()

    def answer(self, replica: ReplicaId, body: bytes) -> bytes:
        """What the hub answers when the terminal with this TLS certificate POSTs `body`. Raises PowerCut."""
        session = Session(self.ledger.fleet, self.ledger.replica)
        heard = Heard(replica, replica.hex())
        try:
            for event in [*session.receive_data(body), *session.receive_eof()]:
                heard.take(event)
        except InputRefused as error:
            heard.refused = Refused(error.code, str(error))
        if heard.refused is not None:
            return session.hello({}) + session.send(heard.refused.answer())
        answer = self._loop.run(self._answerer.answer(heard))
        self.documents.read()
        if self.ledger.restored:  # it has another series then, which is no change that anybody is told of
            self._audit.look(self.replica)
        self.refusals = [] if answer.report is None else [one.error for one in answer.report.refused]
        return session.hello(answer.frontier) + b"".join(map(session.send, answer.messages))

    def take_list(self, raw: bytes) -> None:
        """Whom another identity of it had ended, as a courier file says. Raises PowerCut."""
        document = SignedDocument.decode(raw)
        with suppress(UnknownAuthor):  # of a time that it has forgotten
            self._loop.run(self._recall.take(document))
        self.documents.read()

    def turn_away(self) -> bytes:
        """What it answers when it has read nothing of what it was sent, and will another time."""
        session = Session(self.ledger.fleet, self.ledger.replica)
        return session.hello({}) + session.send(Refusal.of(ComeAgain("Not now.")))

    def book(self, card: CardId, kind: Kind, amount_minor: int, at_ms: int, request: str) -> None:
        """Sell a top-up or the like; `request` books once."""
        self.renew_key()
        self._request = request
        self._oracle.begin(self.replica, [Fact(card, kind, amount_minor, at_ms, NO_CONTEXT)])
        draft = Draft(kind, amount_minor)
        booking = self.ledger.append(card, [draft], at_ms, request=request).result()
        expect(booking.repeated == (request in self.requests), "a request booked twice, or was not booked")
        if booking.repeated:
            self._oracle.pending.pop(self.replica)
        else:
            self._oracle.acknowledge(self.replica)
            self.requests.add(request)

    def adopt(self, hashes: Collection[bytes]) -> int:
        """Write as its own what these say and nobody else has written; how many facts. Raises PowerCut."""
        self.renew_key()
        known = self.evidence.adoptable(self.revocations.replaced)
        self.adoptions.offered.update(Said.by(fact) for hash_ in hashes for fact in facts_in(known[hash_]))
        return self.ledger.adopt(hashes).result()

    def block(self, card: CardId, listed: bool) -> None:
        """Put a card on the hotlist, or take it off."""
        self._audit.listing = card, listed
        changed = self.ledger.set_hotlisted(card, listed).result()
        expect(
            changed == (self._audit.listing is None),
            "the hotlist changed without a position, or got one for nothing",
        )
        self._audit.listing = None

    def set_floor(self, floor_minor: int) -> None:
        """Cards with a balance below this are overdrawn."""
        self._audit.floor_minor = floor_minor
        self.ledger.set_floor(floor_minor).result()

    def revoke(self, cut_offs: Mapping[ReplicaId, int]) -> None:
        """Let what these wrote count up to here, and no further."""
        listed = self.revocations
        for replica, cut_off in cut_offs.items():
            listed = listed.with_cut_off(replica, cut_off)
        self._put_list(listed)

    def enrol(self, author: Author) -> None:
        """As hub.pairing does with whom it pairs."""
        self.ledger.enrol(author.certificate).result()
        self._audit.look(self.replica)

    def has_given(self, replica: ReplicaId) -> bool:
        """Whether it lets a terminal in that it has promised this, which that has not taken up."""
        return replica not in self._forgotten and bool(self.disk.rows(_MET, replica))

    def renew(self, author: Author, before: Collection[ReplicaId], forgotten: Author | None) -> None:
        """Give a terminal its next identity, and end those before, as hub.renewal and hub.pairing do it.

        `forgotten`: what it had given before it was put back, and does not know: it ends, and stays unknown.
        """
        revoker = Revoker(self.ledger, cast(Any, None), self.documents.sealer, lambda: self.now_ms)
        ending = [] if forgotten is None else [forgotten]
        self._forgotten.update(one.replica for one in ending)

        def enrol(amendment: Amendment) -> None:
            for one in ending:
                amendment.enrol(one.certificate)
            revoker.replace(amendment, [*before, *(one.replica for one in ending)])
            amendment.enrol(author.certificate)

        self.ledger.amend(enrol).result()
        self.documents.read()

    def _put_list(self, revocations: Revocations, *, again: bool = False) -> None:
        cut_offs = revocations.cut_offs
        ends = {replica: self.evidence.end(replica, cut_off) for replica, cut_off in cut_offs.items()}
        self.documents.put_list(revocations, again=again)
        for replica, end in ends.items():
            reach = self._oracle.hub.reach.get(replica, 0)
            good = reach <= self.cut_offs[replica] or (replica,) in self.disk.rows(_BEING_CUT)
            expect(end <= reach and good, f"{reach} facts of a revoked author, not {end}")

    def chores(self) -> None:
        """All of the background work."""
        while self.database.run_background(16):
            pass

    def backup(self) -> Backup:
        """A copy of the disk."""
        reach = self._oracle.hub.reach
        return Backup(
            self.disk.image(),
            self._oracle.hub,
            self.author,
            self.marks,
            frozenset(self.requests),
            self.documents.fares,
            self.floor_minor,
            {hub: self.adoptions.branch(hub, reach.get(hub, 0)) for hub in self._identities},
        )

    def restore(self, backup: Backup, *, whole: bool) -> None:
        """Put the copy back and start. What the hub itself booked since is with terminals that keep it.

        `whole`: the machine with its marks, so it cannot know, and gives numbers again until somebody brings
        a block of its own. Where it does not know, as when it had booked nothing since, fares and the list of
        revocations are made again, as whoever puts a hub back does.
        """
        self.put_back, self.documents.lost = True, self.documents.remembered
        self.disk.put_back(backup.image)
        if whole:
            self.unaware, self.marks = True, backup.marks
        for hub in {*self.adoptions.forked, *([backup.author.replica] if whole else [])}:
            self.adoptions.go_back(hub, backup.branches.get(hub, []))
        self._oracle.hub = backup.snapshot
        self.author = backup.author
        self.requests = set(backup.requests)
        self.documents.fares = backup.fares
        self._audit.floor_minor = backup.floor_minor
        self.start()
        if self.author is backup.author:
            self.documents.show_fares_again()
            if self.documents.lost.cut_offs:
                self._put_list(self.documents.lost, again=True)

    def renew_key(self) -> None:
        """Start again where it was found put back meanwhile: it writes nothing more under that identity."""
        if self.ledger.restored:
            self.start()

    def _is_found_out(self) -> bool:
        """Whether something came that shows a hub which goes on with its chain that this is an old copy."""
        own = self.replica
        return own in self.adoptions.returned or (self.unaware and self.evidence.is_of(own))

    def _opened(self) -> HubLedger:
        marks = Marks(self.marks, self._put_marks, self._entropy)
        return HubLedger(
            self.database,
            HOME.root.public_key,
            self.author.key,
            self.author.certificate,
            entropy=self._entropy,
            now_ms=lambda: self.now_ms,
            marks=marks,
            keeping=InlineKeeper,
        )

    def _put_marks(self, data: bytes) -> None:
        self.power()
        self.marks = data
        self.power()

    def _entropy(self, length: int) -> bytes:
        self._drawn += 1
        return sha256(b"hub %d %d" % (self._seed, self._drawn)).digest()[:length]

    def _committed(self, change: Change) -> None:
        if change.position or self.ledger.restored:
            self._audit.look(self.replica)
        expect(self.ledger.restored or not self._is_found_out(), "the hub goes on with a chain that forked")
        expect(self.unaware or not self.ledger.restored, "the hub takes itself for put back")


async def _done(future: Future[T], /) -> T:
    """How to wait for what is done already."""
    return future.result()
