"""A hub that was put back from a backup and has forgotten something: what only a terminal knows."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crdt.certificate import AuthorCertificate, Role, issue
from crdt.documents import SignedDocument
from crdt.facts import Draft, Kind, ReplicaId, TerminalId
from crdt.frames import CertificateFrame, DocumentFrame, Message
from crdt.pull import Pull
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store.backup import back_up
from crdt.store.database import Database
from edge import revoked_list
from edge.errors import HubUnreachable
from edge.exchange import Answer
from edge.terminal import Terminal
from tests.edge.authority import HUB_LIMITS, Fleet
from tests.edge.conftest import FARES, KEY, document
from tests.edge.test_restored import EARLY, LATE, Line
from tests.edge.test_uplink import enrolled, ride
from tests.edge.testhub import TestHub, open_ledger

THIEF = ReplicaId(b"t" * 16)


@dataclass
class PutBack(TestHub):
    """The same fleet's hub with another key, which tells everybody whose it is, and what it was told."""

    __test__ = False

    lists: list[bytes] = field(default_factory=list)
    """The lists of revocations that it was handed, each verified by the certificate that came with it."""

    async def answer_to(self, messages: list[Message]) -> list[Message]:
        signers = [AuthorCertificate.decode(one.raw) for one in messages if isinstance(one, CertificateFrame)]
        for one in messages:
            if isinstance(one, DocumentFrame):
                (signer,) = signers
                SignedDocument.decode(one.raw).verify(signer)
                self.lists.append(one.raw)
        return await super().answer_to(messages)

    async def _settlement(self, pull: Pull) -> list[Message]:
        return [CertificateFrame(self.fleet.hub_certificate.encode()), *await super()._settlement(pull)]


@pytest.fixture
def other_database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "other.db", KEY) as opened:
        yield opened


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


@pytest.fixture
async def put_back(other_database: Database, fleet: Fleet) -> PutBack:
    """It knows nobody's end any more, and its list is newer than every other."""
    again = Fleet(fleet.number, fleet.root_key, fleet.hub_tls_key)
    again.hub_key = SigningKey(b"again" * 6 + b"..")
    again.hub_certificate = issue(
        fleet.key, TerminalId(b"H" * 16), "hub", Role.HUB, again.hub_key.public_key, HUB_LIMITS
    )
    ledger = await asyncio.to_thread(open_ledger, other_database, again)
    revoked = listed(again, 9, NONE_REVOKED)
    return PutBack(again, ledger, document=document(again, FARES, 9), revoked=revoked)


def listed(fleet: Fleet, version: int, revocations: Revocations) -> SignedDocument:
    return SignedDocument.seal(fleet.hub_key, fleet.id, REVOKED_DOCUMENT, version, revocations.encode())


class Deaf(Line):
    """It loses what is said instead, so that the hub does not hear it."""

    async def exchange(self, messages: Sequence[Message]) -> Answer:
        self._arrive()
        hello, *rest = await self.hub.answer_to(list(messages))
        return Answer(hello, tuple(rest), None, 1)  # type: ignore[arg-type]  # an answer begins with HELLO


@pytest.mark.parametrize("way", [Line, Deaf])
@pytest.mark.parametrize("settled", [True, False], ids=["", "before its first settlement"])
@pytest.mark.parametrize("lose", [1, 2, 3, 4])
async def test_what_only_a_terminal_knows_is_not_forgotten_before_the_hub_was_told(
    lose: int,
    settled: bool,
    way: type[Line],
    paired: Terminal,
    hub: TestHub,
    put_back: PutBack,
    fleet: Fleet,
) -> None:
    """Invariant 5: who had ended, by the list held here. Whichever answer is lost, the hub is told of it, and
    until then the terminal counts by it."""
    hub.revoked = listed(fleet, 3, Revocations({THIEF: 0}))
    if settled:
        await asyncio.to_thread(ride, paired, EARLY)
        await Line(hub, paired).sync()
    else:
        await asyncio.to_thread(enrolled(paired).ledger.put_document, hub.revoked)
    line = way(put_back, paired)
    line.lose = lose
    complete = False
    while not complete:
        try:
            complete = (await line.sync()).complete
        except HubUnreachable:
            told = bool(put_back.lists)
            ended = (await asyncio.to_thread(enrolled(paired).ledger.revocations)).cut_offs
            assert told or THIEF in ended
    assert {*put_back.lists} == {hub.revoked.encode()}
    ledger = enrolled(paired).ledger
    assert await asyncio.to_thread(ledger.revocations) == NONE_REVOKED, "the hub decides"
    kept = (await asyncio.to_thread(ledger.authors)).values()
    assert fleet.hub_certificate in kept, "no later hub need know that one's key"


async def test_a_hub_put_back_unnoticed_is_shown_a_block_of_its_own_before_it_is_loaded_from(
    paired: Terminal, hub: TestHub, fleet: Fleet, tmp_path: Path
) -> None:
    """Invariant 5: until it has seen one it gives numbers again, and a load over a slow link takes long.

    Nor is it ever loaded from while it is busy, if that takes more exchanges than one before the second page.
    """
    for card in (EARLY, LATE):
        await asyncio.wrap_future(hub.ledger.append(card, [Draft(Kind.TOPUP, 500)], 1))
    await Line(hub, paired).sync()
    await asyncio.to_thread(back_up, tmp_path / "hub.db", KEY, tmp_path / "image.db")
    await asyncio.wrap_future(hub.ledger.append(EARLY, [Draft(Kind.TOPUP, 500)], 2))
    await Line(hub, paired).sync()
    image = await asyncio.to_thread(Database.open, tmp_path / "image.db", KEY)
    ledger = await asyncio.to_thread(open_ledger, image, fleet)
    line = Line(TestHub(fleet, ledger, page_rows=1, document=document(fleet, FARES)), paired)
    line.lose = 3  # after a question and all that it has to say, in one exchange, it takes the second page
    with pytest.raises(HubUnreachable):
        await line.sync()
    await asyncio.to_thread(image.close)
    assert ledger.restored
    assert enrolled(paired).ledger.settled()[1] == 0, "it is being loaded"


async def test_a_hub_that_signs_with_another_key_and_has_lost_nothing_is_told_nothing(
    paired: Terminal, hub: TestHub, put_back: PutBack, fleet: Fleet
) -> None:
    """A list that says as much is simply taken."""
    hub.revoked = listed(fleet, 3, Revocations({THIEF: 5}))
    await Line(hub, paired).sync()
    put_back.revoked = listed(put_back.fleet, 9, Revocations({THIEF: 5, ReplicaId(b"u" * 16): 1}))
    assert (await Line(put_back, paired).sync()).complete
    assert put_back.lists == []


@pytest.mark.parametrize(
    "less",
    [Revocations({THIEF: 9}, {THIEF}, {THIEF}), Revocations({THIEF: 5}, {THIEF}), NONE_REVOKED],
    ids=["a later end", "no word that it was revoked", "nothing"],
)
async def test_a_list_that_says_less_and_comes_by_a_peer_is_not_taken(
    paired: Terminal, put_back: PutBack, fleet: Fleet, less: Revocations
) -> None:
    """The same rule on every way: the hub that signed it has to be told before."""
    enrolment = enrolled(paired)
    held = listed(fleet, 3, Revocations({THIEF: 5}, {THIEF}, {THIEF}))
    await asyncio.to_thread(enrolment.ledger.put_document, held)
    raw, papers = listed(put_back.fleet, 9, less).encode(), [put_back.fleet.hub_certificate]
    assert not await asyncio.to_thread(revoked_list.take, enrolment.identity, enrolment.ledger, raw, papers)
    assert await asyncio.to_thread(enrolment.ledger.document, REVOKED_DOCUMENT) == held
