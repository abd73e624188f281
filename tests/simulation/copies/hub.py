"""The hub of copies: its real ledger, registry, pairing and renewal, on a disk that can be put back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import Any, Final, cast

from sqlalchemy import Connection

from crdt.certificate import Limits
from crdt.documents import SignedDocument
from crdt.errors import InputRefused, RefusalCode
from crdt.facts import Kind
from crdt.frames import Message
from crdt.pairing import PairingCode
from crdt.protocol import PAIR_FINISH, PAIR_START, RENEW
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.session import Refused, Session
from crdt.store import quarantine_list
from crdt.store.hub import HubLedger
from crdt.store.markkeeper import InlineKeeper
from crdt.store.marks import Marks
from crdt.store.resolutions import UNRESOLVED
from edge import revoked_list
from hub import reissues
from hub.answering import Answerer
from hub.authority import Authority, Secrets, new_secrets
from hub.callers import Callers
from hub.events import EventBus
from hub.founding import SECRET_PREFIX, load_secrets, store_secrets
from hub.heard import Heard
from hub.invites import Invites
from hub.pairing import Pairing
from hub.ratelimit import RateLimit
from hub.recalling import Recall
from hub.registry import Registry
from hub.renewal import Renewal
from hub.restoring import take_new_key
from hub.revoking import Revoker
from hub.sealing import Sealer
from hub.waiting import result_of
from tests.simulation.copies.rides import Ride, counted, facts_in, raws_in
from tests.simulation.disks import Image, empty_disk
from tests.simulation.inline_loop import InlineLoop

LOOP: Final = InlineLoop()
LIMITS: Final = Limits(frozenset((Kind.FARE, Kind.OPENING)), 1 << 40, 1 << 40)
MANY: Final = 10_000
_QUARANTINED: Final = "SELECT raw FROM quarantine WHERE hash = ?"

Position = tuple[bytes, int]  # in the history of a hub: a series, and a number in it


@dataclass(frozen=True)
class Request:
    """As much of web.Request as the handlers ask for."""

    serial: str  # of the TLS certificate
    body: bytes
    remote: str = ""

    async def read(self) -> bytes:
        """The body."""
        return self.body


@dataclass(frozen=True)
class Backup:
    """A copy of the hub's disk and of its marks, which lie beside it, and what had counted by then."""

    image: Image
    marks: bytes
    history: Mapping[Position, Counter[Ride]]


class Hub:
    """The one hub of a world."""

    def __init__(self, seed: int, page_rows: int, now_ms: Callable[[], int]) -> None:
        """`seed`: of all that it draws by chance."""
        self.disk = empty_disk()
        self.history: dict[Position, Counter[Ride]] = {}  # what counted when it was there
        self.adopted: set[Ride] = set()
        self._seed, self._page_rows, self._now_ms = seed, page_rows, now_ms
        self._drawn = 0
        self._marks = b""
        store_secrets(cast(Any, self.disk.start(powered, eager=False)), _secrets())
        self.start()

    def start(self) -> None:
        """Start the program on what is on the disk."""
        self._database = self.disk.start(powered, eager=False)
        self.ledger = self._opened()
        if self.ledger.restored:
            former = self._authority.ledger_key
            put = self._key_kept
            take_new_key(self._database, former.replica, put, self._now_ms(), self._entropy)
            self.ledger.close()
            self.ledger = self._opened()
        ledger, database, authority, now_ms = self.ledger, self._database, self._authority, self._now_ms
        sealer, registry, bus = Sealer(ledger.fleet, authority.ledger_key), Registry(database), EventBus()
        revoker, rate = Revoker(ledger, registry, sealer, now_ms), RateLimit(MANY, 1.0, _no_time)
        self._callers = Callers(registry, now_ms)
        lost = Recall(ledger, registry, bus, sealer, result_of, now_ms)
        self._answerer = Answerer(ledger, self._page_rows, result_of, now_ms, lost=lost)
        self._invites = Invites(database, expiry_s=600, tries=3)
        renewal = Renewal(database, authority, ledger, revoker, self._callers, bus, rate, MANY, now_ms)
        pairing = Pairing(
            ledger, authority, self._invites, _limits, rate, revoker, now_ms, _no_time, self._entropy
        )
        self._handlers = {
            RENEW: renewal.renew,
            PAIR_START: pairing.start,
            PAIR_FINISH: pairing.finish,
        }
        ledger.on_commit(lambda _change: self._look())
        self._look()
        listed = ledger.document(REVOKED_DOCUMENT).result()
        if listed is not None and listed.signer != ledger.replica:
            version, key = listed.version + 1, authority.ledger_key
            again = SignedDocument.seal(key, ledger.fleet, REVOKED_DOCUMENT, version, listed.body)
            ledger.put_document(again).result()

    async def answer(self, serial: str, body: bytes) -> bytes:
        """POST SYNC, under the TLS certificate with this serial number. Raises InputRefused."""
        client = await self._callers.admitted(cast(Any, Request(serial, b"")))
        session = Session(self.ledger.fleet, self.ledger.replica)
        heard = Heard(client.replica, client.name, client.terminal)
        try:
            for event in [*session.receive_data(body), *session.receive_eof()]:
                heard.take(event)
        except InputRefused as error:
            heard.refused = Refused(error.code, str(error))
        if heard.refused is not None:
            return session.hello({}) + session.send(heard.refused.answer())
        answer = await self._answerer.answer(heard)
        if answer.report is not None:
            hashes = reissues.quarantined(answer.report.refused)
            await reissues.settle(self._database, self.ledger, hashes)
        self._restart_if_put_back()
        return session.hello(answer.frontier) + b"".join(map(session.send, answer.messages))

    async def ask(self, serial: str, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON object. Raises InputRefused or RequestRefused."""
        request = Request(serial, json.dumps(dict(asked)).encode())
        response = await self._handlers[path](cast(Any, request))
        answer: dict[str, Any] = json.loads(cast(Any, response.body))
        return answer

    def invite(self) -> str:
        """A code that pairs one terminal."""
        create = self._invites.create
        return LOOP.run(
            create(lambda plate: str(PairingCode.new(int(plate), self._entropy)), self._now_ms())
        ).code

    @property
    def spki_sha256(self) -> bytes:
        """Of its TLS key."""
        return self._authority.hub_spki_sha256

    def listed(self) -> Sequence[Message]:
        """GET REVOKED_LIST."""
        document = self.ledger.document(REVOKED_DOCUMENT).result()
        return revoked_list.papers(document, self.ledger.authors())

    def work(self) -> None:
        """What it does in the background, to the end of it."""
        while self._database.run_background():
            pass
        self._restart_if_put_back()

    def count(self) -> Counter[Ride]:
        """How often each ride counts."""
        return counted(raws_in(self.disk, "block"))

    @property
    def position(self) -> Position:
        """Where it is in its history."""
        series, number = self.disk.rows("SELECT series, position FROM hub")[0]
        return series, number

    def backup(self) -> Backup:
        """Copy all of it."""
        return Backup(self.disk.image(), self._marks, dict(self.history))

    def put_back(self, backup: Backup, *, whole: bool) -> None:
        """Start on the copy. `whole`: with the marks, so that it cannot know; without, it takes a new key."""
        self.disk.put_back(backup.image)
        self.history = dict(backup.history)
        if whole:
            self._marks = backup.marks
        self.start()

    def undecided(self) -> list[bytes]:
        """The hashes of the quarantined blocks that an operator may have it adopt."""
        document = self.ledger.document(REVOKED_DOCUMENT).result()
        replaced = (NONE_REVOKED if document is None else Revocations.decode(document.body)).replaced

        def read(connection: Connection) -> list[bytes]:
            return [
                one.hash
                for one in quarantine_list.listed(connection, MANY)
                if one.resolution in UNRESOLVED
                and (one.reason is RefusalCode.FORK_DETECTED or one.replica in replaced)
            ]

        return sorted(self._database.read(read).result())

    def adopt(self, hashes: Iterable[bytes]) -> None:
        """An operator lets it book what these say and it has not."""
        hashes = [*hashes]
        for hash_ in hashes:
            self.adopted.update(facts_in(self.disk.rows(_QUARANTINED, hash_)[0][0]))
        self.ledger.adopt(hashes).result()

    def _opened(self) -> HubLedger:
        secrets = load_secrets(self._database)
        assert secrets is not None
        self._authority = authority = Authority(secrets)
        return HubLedger(
            self._database,
            authority.fleet_key.public_key,
            authority.ledger_key,
            authority.hub_certificate,
            entropy=self._entropy,
            now_ms=self._now_ms,
            marks=Marks(self._marks, self._put_marks, self._entropy),
            keeping=InlineKeeper,
        )

    def _key_kept(self, seed: bytes) -> bytes:
        secrets = load_secrets(self._database)
        assert secrets is not None
        return self._database.swap_secret(SECRET_PREFIX + "ledger_key", secrets.ledger_key, seed)

    def _restart_if_put_back(self) -> None:
        """As the program does when its ledger turns out to be an old one."""
        if self.ledger.restored:
            self.start()

    def _look(self) -> None:
        if self.position not in self.history:
            self.history[self.position] = self.count()

    def _put_marks(self, data: bytes) -> None:
        self._marks = data

    def _entropy(self, length: int) -> bytes:
        self._drawn += 1
        return sha256(b"hub %d %d" % (self._seed, self._drawn)).digest()[:length]


def powered() -> None:
    """The power never fails here: the simulation of the fleet sees to that."""


def _no_time() -> float:
    return 0.0


async def _limits() -> Limits:
    return LIMITS


@cache
def _secrets() -> Secrets:
    """Of the fleet; what is in the ledger is the same in every process."""
    fleet, ledger = sha256(b"copies fleet").digest(), sha256(b"copies hub").digest()
    return replace(new_secrets(), fleet_key=fleet, ledger_key=ledger)
