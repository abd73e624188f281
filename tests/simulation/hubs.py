"""The depot: a real hub ledger behind the hub's real sync handler, on a disk that can be put back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeVar, cast

from crdt.documents import SignedDocument
from crdt.errors import InputRefused
from crdt.facts import NO_CONTEXT, CardId, Draft, Kind, ReplicaId
from crdt.frontier import Frontier
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.session import Refused, Session
from crdt.settlement import SERIES_BYTES
from crdt.store.amending import Amendment
from crdt.store.balances import NO_FLOOR
from crdt.store.hub import Change, HubLedger
from crdt.store.marks import Marks
from hub.answering import Answerer
from hub.heard import Heard
from hub.revoking import Revoker
from tests.simulation.authors import FARES, HOME, Author, fares, hub_author
from tests.simulation.disks import Image, empty_disk
from tests.simulation.inline_loop import InlineLoop
from tests.simulation.oracle import Fact, Oracle, Snapshot, expect
from tests.simulation.power import Power

T = TypeVar("T")


@dataclass(frozen=True)
class Backup:
    """A copy of the hub's disk, and what was true when it was taken."""

    image: Image
    snapshot: Snapshot
    author: Author  # the key that is in it
    requests: frozenset[str]
    fares: int
    floor_minor: int


class Hub:
    """The one hub of a world."""

    def __init__(self, oracle: Oracle, loop: InlineLoop, page_rows: int) -> None:
        self.page_rows = page_rows
        self.power = Power("hub")
        self.disk = empty_disk()
        self.starts = 0
        self.requests: set[str] = set()
        self.fares = 0
        self.published = 0  # the highest version of fares that there ever was
        self.floor_minor = NO_FLOOR
        self.put_back = False  # whether its disk ever was
        self.revocations = NONE_REVOKED
        self.refusals: list[InputRefused] = []  # in the last answer
        self.author = HOME.hub
        self.marks = b""  # what is in the file beside the ledger, which no backup holds
        self._keys = 1
        self._nonces = 0
        self._oracle = oracle
        self._loop = loop
        self._request = ""  # the last one that was tried
        self._lists = 0  # of revocations, signed so far
        self._listing: tuple[CardId, bool] | None = None
        self.start()

    @property
    def replica(self) -> ReplicaId:
        """Who writes the hub's own facts."""
        return self.ledger.replica

    @property
    def cut_offs(self) -> Mapping[ReplicaId, int]:
        """Of the revoked, and of identities that were replaced."""
        return self.revocations.cut_offs

    def start(self) -> None:
        """Start the program on what is on the disk."""
        self.starts += 1
        self.database = self.disk.start(self.power, eager=False)
        self.ledger = self._opened()
        renewed = self.ledger.restored
        if renewed:
            self.author = hub_author(HOME.name, self._keys)
            self._keys += 1
            self.ledger = self._opened()
        expect(not self.ledger.restored, "a hub with a new key counts as put back")
        self.ledger.on_commit(self._committed)
        self._answerer = Answerer(self.ledger, self.page_rows, _done, now_ms=lambda: 0)
        written = len(self._oracle.facts.get(self.replica, ()))
        self._look()
        self._listing = None
        self.revocations = self._listed()
        self._oracle.found(self.replica, self._oracle.hub.reach.get(self.replica, 0))
        if len(self._oracle.facts[self.replica]) > written:
            self.requests.add(self._request)
        if renewed:
            self._sign_again()

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
        self.refusals = [] if answer.report is None else [one.error for one in answer.report.refused]
        return session.hello(answer.frontier) + b"".join(map(session.send, answer.messages))

    def book(self, card: CardId, kind: Kind, amount_minor: int, at_ms: int, request: str) -> None:
        """Sell a top-up or the like; `request` books once."""
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

    def block(self, card: CardId, listed: bool) -> None:
        """Put a card on the hotlist, or take it off."""
        self._listing = card, listed
        changed = self.ledger.set_hotlisted(card, listed).result()
        expect(
            changed == (self._listing is None),
            "the hotlist changed without a position, or got one for nothing",
        )
        self._listing = None

    def publish_fares(self) -> None:
        """Put the next version of the fleet's settings."""
        self.fares += 1
        expect(
            self.ledger.put_document(fares(self.fares, self.author)).result(), "newer settings were not taken"
        )
        self.published = max(self.published, self.fares)
        self.floor_minor = FARES[(self.fares - 1) % len(FARES)].floor_minor
        self.ledger.set_floor(self.floor_minor).result()

    def revoke(self, cut_offs: Mapping[ReplicaId, int]) -> None:
        """Let what these wrote count up to here, and no further."""
        listed = self.revocations
        for replica, cut_off in cut_offs.items():
            listed = listed.with_cut_off(replica, cut_off)
        self._put_list(listed)

    def renew(self, author: Author, before: Collection[ReplicaId]) -> None:
        """Give a terminal its next identity, and end those before, as hub.renewal and hub.pairing do it."""
        revoker = Revoker(self.ledger, cast(Any, None), cast(Any, self), lambda: 0)

        def enrol(amendment: Amendment) -> None:
            revoker.replace(amendment, before)
            amendment.enrol(author.certificate)

        self.ledger.amend(enrol).result()
        self.revocations = self._listed()

    def put(self, amendment: Amendment, name: str, body: bytes) -> None:
        """See hub.sealing.Sealer."""
        amendment.put_document(self._signed(name, body))

    def _put_list(self, revocations: Revocations) -> None:
        cut_offs = revocations.cut_offs
        ends = {replica: self.end(replica, cut_off) for replica, cut_off in cut_offs.items()}
        document = self._signed(REVOKED_DOCUMENT, revocations.encode())
        expect(self.ledger.put_document(document).result(), "a newer list of the revoked was not taken")
        self.revocations = self._listed()
        for replica, end in ends.items():
            reach = self._oracle.hub.reach.get(replica, 0)
            expect(end <= reach <= self.cut_offs[replica], f"{reach} facts of a revoked author, not {end}")

    def _signed(self, name: str, body: bytes) -> SignedDocument:
        self._lists += 1
        return SignedDocument.seal(self.author.key, HOME.id, name, self._lists, body)

    def end(self, replica: ReplicaId, cut_off: int) -> int:
        """Where the chain ends that is held and does not go beyond, with what waits in quarantine."""
        rows = self.disk.rows(_KEPT, replica, replica)
        end = 0
        for first, last in sorted(rows):
            end = last if first == end + 1 and last <= cut_off else end
        return end

    def hashes(self) -> set[bytes]:
        """Of all blocks that are here, those that do not count too."""
        return {
            each for (each,) in self.disk.rows("SELECT hash FROM block UNION SELECT hash FROM quarantine")
        }

    def chores(self) -> None:
        """All of the background work."""
        while self.database.run_background(16):
            pass

    def backup(self) -> Backup:
        """A copy of the disk."""
        return Backup(
            self.disk.image(),
            self._oracle.hub,
            self.author,
            frozenset(self.requests),
            self.fares,
            self.floor_minor,
        )

    def restore(self, backup: Backup) -> None:
        """Put the copy back and start. What the hub itself booked since is with terminals that keep it.

        The list of revocations is made again, as whoever puts a hub back does.
        """
        revocations, self.put_back = self.revocations, True
        self.disk.put_back(backup.image)
        self._oracle.hub = backup.snapshot
        self.author = backup.author
        self.requests = set(backup.requests)
        self.fares = backup.fares
        self.floor_minor = backup.floor_minor
        self.start()
        if self.revocations != revocations:
            self._put_list(revocations)

    def _sign_again(self) -> None:
        """The documents, with the new key: terminals are told of the hub that speaks, and of no other."""
        if self.fares:
            self.fares += len(FARES)  # the same settings, as a newer version
            self.ledger.put_document(fares(self.fares, self.author)).result()
        if self.cut_offs:
            self._put_list(self.revocations)

    def _listed(self) -> Revocations:
        document = self.ledger.document(REVOKED_DOCUMENT).result()
        return NONE_REVOKED if document is None else Revocations.decode(document.body)

    def _opened(self) -> HubLedger:
        marks = Marks(self.marks, self._put_marks, self._nonce)
        return HubLedger(
            self.database,
            HOME.root.public_key,
            self.author.key,
            self.author.certificate,
            entropy=self._entropy,
            now_ms=lambda: 0,
            marks=marks,
            keeping=InlineKeeper,
        )

    def _put_marks(self, data: bytes) -> None:
        self.power()
        self.marks = data
        self.power()

    def _entropy(self, length: int) -> bytes:
        if length == SERIES_BYTES:
            return b"series".ljust(length)
        return sha256(b"start %d" % self.starts).digest()[:length]

    def _nonce(self, length: int) -> bytes:
        self._nonces += 1
        return self._nonces.to_bytes(length, "big")

    def _committed(self, change: Change) -> None:
        if change.position:
            self._look()

    def _look(self) -> None:
        """Compare what is on the disk now with the truth, and remember what this position means."""
        series, position = self.disk.rows("SELECT series, position FROM hub")[0]
        known = self._oracle.history.get((series, position))
        if position == 0 or known is not None:
            snapshot = self._oracle.record(series, position, known or Snapshot())
        else:
            reach = dict(self.disk.rows("SELECT replica, seq FROM head"))
            self._list()
            snapshot = self._judged(series, position, reach)
        self._check(snapshot)

    def _judged(self, series: bytes, position: int, reach: Mapping[ReplicaId, int]) -> Snapshot:
        """What the new position means; cards that it changes are judged by the rule that holds now."""
        before = self._oracle.hub.cards
        rows = self.disk.rows("SELECT card FROM card WHERE flags & 4")
        snapshot = self._oracle.settled(series, position, reach, frozenset(card for (card,) in rows))
        for card, state in snapshot.cards.items():
            owes = sum(state) < self.floor_minor
            expect(
                before.get(card) == state or owes == (card in snapshot.overdrawn),
                f"{card.hex()} with {sum(state)} is overdrawn wrongly",
            )
        return snapshot

    def _list(self) -> None:
        if self._listing is not None:
            card, listed = self._listing
            before = self._oracle.hub
            change = before.listed | {card} if listed else before.listed - {card}
            expect(change != before.listed, "the hotlist changed to what it was")
            self._oracle.hub = replace(before, listed=change)
            self._listing = None

    def _check(self, snapshot: Snapshot) -> None:
        rows = self.disk.rows("SELECT card, sum_minor, opening_minor, flags & 1 FROM card")
        cards = {row[0]: (row[1], row[2]) for row in rows if row[0] in snapshot.cards or row[1] or row[2]}
        expect(cards == snapshot.cards, f"the hub's balances are {cards}, not {snapshot.cards}")
        listed = {row[0] for row in rows if row[3]}
        expect(listed == snapshot.listed, "the hub's hotlist is another")


_KEPT = """
    SELECT first_seq, last_seq FROM block WHERE replica = ?
    UNION SELECT first_seq, last_seq FROM quarantine WHERE replica = ? AND reason = 9
"""


class InlineKeeper:
    """Writes the hub's marks: at once for its own facts; for everybody else's when it comes to that."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def note(self, heads: Frontier) -> None:
        """See crdt.store.markkeeper.Keeper."""
        self._marks.advance(heads)

    def secure(self, heads: Frontier) -> Future[None]:
        """See crdt.store.markkeeper.Keeper."""
        self._marks.advance(heads)
        self._marks.save()
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def close(self) -> None:
        """See crdt.store.markkeeper.Keeper."""


async def _done(future: Future[T], /) -> T:
    """How to wait for what is done already."""
    return future.result()
