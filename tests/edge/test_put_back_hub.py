"""A hub that was put back from a backup and has forgotten something: what only a terminal knows."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crdt.certificate import AuthorCertificate, Role, issue
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import Draft, Kind, ReplicaId, TerminalId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame, Message, Refusal
from crdt.pull import Pull
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store.backup import back_up
from crdt.store.database import Database
from edge import revoked_list
from edge.delivery import Delivery
from edge.errors import HubTooSlow, HubUnreachable
from edge.exchange import Answer
from edge.sync import Outcome, Sync
from edge.terminal import Terminal
from tests.edge.authority import HUB_LIMITS, Fleet
from tests.edge.conftest import FARES, KEY, document
from tests.edge.test_restored import EARLY, LATE, Line
from tests.edge.test_uplink import enrolled, ride
from tests.edge.testhub import TestHub, open_ledger

THIEF = ReplicaId(b"t" * 16)
AGAIN = SigningKey(b"again" * 6 + b"..")  # of the hub after it was put back


Says = Callable[["PutBack", SignedDocument], list[Message]]
"""What a hub answers to a list that it was handed."""


def decides(hub: "PutBack", told: SignedDocument) -> list[Message]:
    """It has had that list, and its operator has decided otherwise since."""
    assert hub.revoked is not None
    return hub.answers(told, Revocations.decode(hub.revoked.body))


def joins(hub: "PutBack", told: SignedDocument) -> list[Message]:
    """It takes it in."""
    assert hub.revoked is not None
    return hub.answers(told, Revocations.decode(hub.revoked.body).joined(Revocations.decode(told.body)))


def refuses(*codes: RefusalCode) -> Says:
    return lambda _hub, _told: [Refusal(code, "so it is") for code in codes]


def gives(key: SigningKey, version: int, body: bytes) -> Says:
    def says(hub: "PutBack", _told: SignedDocument) -> list[Message]:
        document = SignedDocument.seal(key, hub.fleet.id, REVOKED_DOCUMENT, version, body)
        return [DocumentFrame(document.encode())]

    return says


@dataclass
class PutBack(TestHub):
    """The same fleet's hub with another key, which tells everybody whose it is, and what it was told."""

    __test__ = False

    says: Says = joins
    lists: list[bytes] = field(default_factory=list)
    """The lists of revocations that it was handed, each verified by the certificate that came with it."""

    async def answer_to(self, messages: list[Message]) -> list[Message]:
        signers = [AuthorCertificate.decode(one.raw) for one in messages if isinstance(one, CertificateFrame)]
        said: list[Message] = []
        for one in messages:
            if isinstance(one, DocumentFrame):
                (signer,) = signers
                told = SignedDocument.decode(one.raw).verify(signer)
                self.lists.append(one.raw)
                said += self.says(self, told)
        return [*await super().answer_to(messages), *said]

    def answers(self, told: SignedDocument, revocations: Revocations) -> list[Message]:
        """Its list from now on, above the one that it was told."""
        assert self.revoked is not None
        self.revoked = listed(self.fleet, max(self.revoked.version, told.version) + 1, revocations)
        return [CertificateFrame(self.fleet.hub_certificate.encode()), DocumentFrame(self.revoked.encode())]

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
    again.hub_key = AGAIN
    again.hub_certificate = issue(
        fleet.key, TerminalId(b"H" * 16), "hub", Role.HUB, again.hub_key.public_key, HUB_LIMITS
    )
    ledger = await asyncio.to_thread(open_ledger, other_database, again)
    revoked = listed(again, 9, NONE_REVOKED)
    return PutBack(again, ledger, document=document(again, FARES, 9), revoked=revoked)


def listed(fleet: Fleet, version: int, revocations: Revocations) -> SignedDocument:
    return SignedDocument.seal(fleet.hub_key, fleet.id, REVOKED_DOCUMENT, version, revocations.encode())


async def synced(terminal: Terminal, hub: TestHub, delivery: Delivery, *, retry: bool = True) -> Outcome:
    line = Line(hub, terminal)
    return await Sync(terminal, enrolled(terminal), line.exchange, dict, delivery, retry).run()


class Deaf(Line):
    """It loses what is said instead, so that the hub does not hear it."""

    async def exchange(self, messages: Sequence[Message]) -> Answer:
        self._arrive()
        hello, *rest = await self.hub.answer_to(list(messages))
        return Answer(hello, tuple(rest), None, 1)  # type: ignore[arg-type]  # an answer begins with HELLO


async def holding(terminal: Terminal, hub: TestHub, *, settled: bool = True) -> None:
    """The terminal has this hub's list, and has settled with it."""
    assert hub.revoked is not None
    if settled:
        await asyncio.to_thread(ride, terminal, EARLY)
        await Line(hub, terminal).sync()
    else:
        await asyncio.to_thread(enrolled(terminal).ledger.put_document, hub.revoked)


async def ended(terminal: Terminal) -> Mapping[ReplicaId, int]:
    return (await asyncio.to_thread(enrolled(terminal).ledger.revocations)).cut_offs


@pytest.mark.parametrize("way", [Line, Deaf])
@pytest.mark.parametrize("settled", [True, False], ids=["", "before its first settlement"])
@pytest.mark.parametrize("says", [joins, decides])
@pytest.mark.parametrize("lose", [1, 2, 3, 4, 5])
async def test_what_only_a_terminal_knows_is_not_forgotten_before_the_hub_was_told(
    lose: int,
    says: Says,
    settled: bool,
    way: type[Line],
    paired: Terminal,
    hub: TestHub,
    put_back: PutBack,
    fleet: Fleet,
) -> None:
    """Invariant 5: who had ended, by the list held here. Whichever answer is lost, the hub is told of it, and
    until then the terminal counts by it. It never counts by less than the hub has decided."""
    hub.revoked = listed(fleet, 3, Revocations({THIEF: 0}))
    await holding(paired, hub, settled=settled)
    put_back.says = says
    line = way(put_back, paired)
    line.lose = lose
    complete = False
    while not complete:
        try:
            complete = (await line.sync()).complete
        except HubUnreachable:
            told = bool(put_back.lists)
            assert THIEF in await ended(paired) or (told and says is decides)
    assert {*put_back.lists} == {hub.revoked.encode()}
    assert [*await ended(paired)] == ([THIEF] if says is joins else []), "the hub decides"
    kept = (await asyncio.to_thread(enrolled(paired).ledger.authors)).values()
    assert fleet.hub_certificate in kept, "no later hub need know that one's key"


@pytest.mark.parametrize(
    "says",
    [
        refuses(RefusalCode.COME_AGAIN),
        refuses(RefusalCode.UNKNOWN_AUTHOR),
        refuses(RefusalCode.FORK_DETECTED, RefusalCode.COME_AGAIN),
        refuses(),
        gives(SigningKey(b"s" * 32), 20, NONE_REVOKED.encode()),
        gives(AGAIN, 20, b"no list"),
        gives(AGAIN, 3, NONE_REVOKED.encode()),
    ],
    ids=[
        "come again",
        "unknown author",
        "and of something else",
        "nothing",
        "a stranger's list",
        "one that does not read",
        "one that is no newer",
    ],
)
async def test_a_hub_that_has_not_taken_the_list_is_told_again_and_nothing_is_forgotten(
    says: Says, paired: Terminal, hub: TestHub, put_back: PutBack, fleet: Fleet
) -> None:
    """A stolen terminal is not valid again because the hub had something else to do, or answers what is no
    acknowledgement (invariant 8). The rest goes on: taps go up, the settlement is taken; a tap does not bring
    the list again."""
    hub.revoked = listed(fleet, 3, Revocations({THIEF: 0}))
    await holding(paired, hub)
    put_back.says = says
    delivery = Delivery()
    for retry, told in ((True, 1), (False, 1), (True, 2)):
        await asyncio.to_thread(ride, paired, LATE)
        assert (await synced(paired, put_back, delivery, retry=retry)).complete
        assert enrolled(paired).ledger.held() == (0, 0)
        assert THIEF in await ended(paired)
        assert len(put_back.lists) == told
        assert "has not taken that from this terminal yet" in delivery.notes
        assert THIEF.hex() in delivery.notes
    put_back.says = joins
    assert (await synced(paired, put_back, delivery)).complete
    assert [*await ended(paired)] == [THIEF]
    assert delivery.notes == ""
    assert (await synced(paired, put_back, delivery)).complete
    assert len(put_back.lists) == 3


async def test_a_hub_that_will_not_have_the_list_decides_and_that_is_told(
    paired: Terminal, hub: TestHub, put_back: PutBack, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """Its later revocations hold here; whom it lets count again a technician reads, until its next list."""
    hub.revoked = listed(fleet, 3, Revocations({THIEF: 0}))
    await holding(paired, hub)
    put_back.says = refuses(RefusalCode.TOO_LARGE)
    delivery = Delivery()
    for _ in range(2):
        assert (await synced(paired, put_back, delivery)).complete
        assert await ended(paired) == {}
        assert len(put_back.lists) == 1
        assert "what they wrote later counts again" in delivery.notes
        assert THIEF.hex() in delivery.notes
    assert delivery.notes in caplog.text
    put_back.revoked = listed(put_back.fleet, 10, Revocations({THIEF: 0}))
    for _ in range(2):
        assert (await synced(paired, put_back, delivery)).complete
    assert [*await ended(paired)] == [THIEF]
    assert delivery.notes == ""


async def test_a_list_that_cannot_be_told_does_not_keep_the_taps_back(
    paired: Terminal, hub: TestHub, put_back: PutBack, fleet: Fleet
) -> None:
    """Invariant 4: a long list over a slow link, or a hub that fails at it."""
    hub.revoked = listed(fleet, 3, Revocations({THIEF: 0}))
    await holding(paired, hub)
    await asyncio.to_thread(ride, paired, LATE)
    delivery, line = Delivery(), Line(put_back, paired)

    async def slow(messages: Sequence[Message]) -> Answer:
        if any(isinstance(one, DocumentFrame) for one in messages):
            raise HubTooSlow("The hub took too long to answer.")
        return await line.exchange(messages)

    assert (await Sync(paired, enrolled(paired), slow, dict, delivery).run()).complete
    assert enrolled(paired).ledger.held() == (0, 0)
    assert THIEF in await ended(paired)
    assert "The hub took too long to answer." in delivery.notes


async def test_a_hub_is_told_who_had_ended_before_it_is_brought_blocks(
    paired: Terminal, hub: TestHub, put_back: PutBack, fleet: Fleet
) -> None:
    """Invariant 5: what an ended identity wrote, and a later one again, would count twice for a while."""
    hub.revoked = listed(fleet, 3, Revocations({THIEF: 0}))
    await holding(paired, hub)
    await asyncio.to_thread(ride, paired, LATE)
    order: list[type[Message]] = []

    class Listening(Line):
        async def exchange(self, messages: Sequence[Message]) -> Answer:
            order.extend(type(one) for one in messages if isinstance(one, DocumentFrame | BlockFrame))
            return await super().exchange(messages)

    assert (await Listening(put_back, paired).sync()).complete
    assert order[0] is DocumentFrame
    assert BlockFrame in order


async def test_a_hub_that_does_not_know_that_it_was_put_back_is_told_what_it_signed_itself(
    paired: Terminal, hub: TestHub, fleet: Fleet
) -> None:
    """Only a revocation was lost, with the marks: nothing else tells it. It gives its older list, and that
    never replaces the one held."""
    older = listed(fleet, 2, NONE_REVOKED)
    hub.revoked = listed(fleet, 3, Revocations({THIEF: 0}))
    await holding(paired, hub)
    image = PutBack(fleet, hub.ledger, document=hub.document, revoked=older)
    assert (await synced(paired, image, Delivery())).complete
    assert image.lists == [hub.revoked.encode()]
    assert [*await ended(paired)] == [THIEF]
    assert image.revoked is not None
    assert image.revoked.version == 4


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
    assert await ended(paired) == {THIEF: 5, ReplicaId(b"u" * 16): 1}


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


async def test_who_is_revoked_takes_the_list_that_says_so_whatever_it_leaves_out(
    paired: Terminal, put_back: PutBack, fleet: Fleet
) -> None:
    """A stolen terminal takes itself out of service: a hub that refuses it does not hear its list either."""
    enrolment = enrolled(paired)
    own, ledger = enrolment.identity.replica, enrolment.ledger
    await asyncio.to_thread(ledger.put_document, listed(fleet, 3, Revocations({THIEF: 5})))
    certificate = CertificateFrame(put_back.fleet.hub_certificate.encode())
    for less, taken in ((Revocations({own: 0}, {own}), False), (Revocations({own: 0}), True)):
        raw = listed(put_back.fleet, 9, less).encode()
        await asyncio.to_thread(
            revoked_list.learn, enrolment.identity, ledger, [certificate, DocumentFrame(raw)]
        )
        assert ledger.revoked is taken
        assert (await asyncio.to_thread(ledger.revocations)).cut_offs == ({own: 0} if taken else {THIEF: 5})


async def test_a_hub_put_back_again_while_it_is_loaded_from_is_told_what_was_settled_too(
    paired: Terminal, hub: TestHub, put_back: PutBack, fleet: Fleet, tmp_path: Path
) -> None:
    """Invariant 4: the one before it was told, and that is lost with it; what was installed still shows."""
    for card in (EARLY, LATE):
        await asyncio.wrap_future(hub.ledger.append(card, [Draft(Kind.TOPUP, 500)], 1))
    await Line(hub, paired).sync()
    settled = await asyncio.to_thread(enrolled(paired).ledger.settled_frontier)
    again = await asyncio.to_thread(Database.open, tmp_path / "again.db", KEY)
    for database, put in ((None, put_back), (again, put_back)):
        if database is not None:
            ledger = await asyncio.to_thread(open_ledger, database, put.fleet)
            put = PutBack(put.fleet, ledger, document=put.document)
        for card in (EARLY, LATE):
            await asyncio.wrap_future(put.ledger.append(card, [Draft(Kind.TOPUP, 100)], 2))
        put.page_rows = 1
        line = Line(put, paired)
        line.lose = 3  # when the first page is staged
        with pytest.raises(HubUnreachable):
            await line.sync()
        assert enrolled(paired).ledger.settled()[1] == 0, "it is being loaded"
        assert put.settled_before == [settled]
    await asyncio.to_thread(again.close)
