"""A hub that answers wrongly while a restored terminal takes its next identity up: nothing gives way for it.

The promise is kept, so that an honest answer to the same questions makes all of it good (invariants 4 and 8).
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from crdt.block import parse, seal
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import CardId, Delta, Kind
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame, Hello, Message, Refusal
from crdt.frontier import GENESIS
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store.database import Database
from edge.comparing import take_up
from edge.errors import AnswerRefused, HubRefused, HubUnreachable
from edge.exchange import Answer
from edge.identity import Identity
from edge.promised import Promised
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, document
from tests.edge.test_restored import AFTER, EARLY, LATE, Line, agree, balances, restored
from tests.edge.test_uplink import enrolled, ride
from tests.edge.testhub import TestHub, open_ledger

CARDS = (EARLY, LATE, AFTER)
OTHERS = CardId(bytes([4, 0, 0, 9]))


@dataclass
class Scene:
    """What a liar may use: the fleet, what the terminal is, another life of it, whose chain the hub has."""

    fleet: Fleet
    before: Identity
    life: Identity
    stranger: Identity
    own: bytes
    """The terminal's own block, which contradicts the hub's."""


Lie = Callable[[Scene, list[Message]], list[Message]]
"""The scene and an honest answer -> what is said instead."""


def fare(author: Identity, seq: int, at_ms: int) -> Delta:
    return Delta(author.replica, seq, OTHERS, Kind.FARE, -250, at_ms)


def of(author: Identity, message: Message) -> bool:
    """Whether it is a block of this author."""
    return isinstance(message, BlockFrame) and parse(message.raw).header.replica == author.replica


def instead(author: Callable[[Scene], Identity], *raws: Callable[[Scene, bytes], bytes]) -> Lie:
    """Other bytes instead of each block of an author."""

    def lie(scene: Scene, honest: list[Message]) -> list[Message]:
        said: list[Message] = []
        for message in honest:
            if isinstance(message, BlockFrame) and of(author(scene), message):
                said += [BlockFrame(raw(scene, message.raw)) for raw in raws]
            else:
                said.append(message)
        return said

    return lie


def before(scene: Scene) -> Identity:
    return scene.before


def life(scene: Scene) -> Identity:
    return scene.life


def flipped(_scene: Scene, raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def unchanged(_scene: Scene, raw: bytes) -> bytes:
    return raw


def beside(scene: Scene, raw: bytes) -> bytes:
    """A rightly signed block that follows another one than this."""
    after = parse(raw).last_seq
    previous = parse(scene.own).hash
    return seal(scene.before.keys.signing, scene.fleet.id, [fare(scene.before, after + 1, 9)], previous).raw


def by_the_stranger(scene: Scene, _raw: bytes) -> bytes:
    return seal(scene.stranger.keys.signing, scene.fleet.id, [fare(scene.stranger, 1, 9)], GENESIS).raw


def listed(fleet: Fleet, key: SigningKey, body: bytes) -> DocumentFrame:
    return DocumentFrame(SignedDocument.seal(key, fleet.id, REVOKED_DOCUMENT, 99, body).encode())


def with_list(key: Callable[[Fleet], SigningKey], body: Callable[[Scene], bytes]) -> Lie:
    """Another list of revocations instead of the hub's."""

    def lie(scene: Scene, honest: list[Message]) -> list[Message]:
        document = listed(scene.fleet, key(scene.fleet), body(scene))
        return [document if isinstance(one, DocumentFrame) else one for one in honest]

    return lie


def nobody(_scene: Scene) -> bytes:
    return Revocations().encode()


LIES: dict[str, tuple[RefusalCode, Lie]] = {
    "bytes that are no block": (
        RefusalCode.MALFORMED,
        lambda scene, honest: [BlockFrame(b"x") if of(scene.before, one) else one for one in honest],
    ),
    "its chain, cut short": (RefusalCode.MALFORMED, instead(before, lambda _scene, raw: raw[:60])),
    "its chain with a wrong signature": (RefusalCode.BAD_SIGNATURE, instead(before, flipped)),
    "its chain twice": (RefusalCode.CHAIN_BROKEN, instead(before, unchanged, unchanged)),
    "its chain and what does not follow": (RefusalCode.CHAIN_BROKEN, instead(before, unchanged, beside)),
    "somebody else's chain as its own": (RefusalCode.CHAIN_BROKEN, instead(before, by_the_stranger)),
    "another life's chain with a wrong signature": (RefusalCode.BAD_SIGNATURE, instead(life, flipped)),
    "another life's chain without who wrote it": (
        RefusalCode.UNKNOWN_AUTHOR,
        lambda scene, honest: [one for one in honest if not isinstance(one, CertificateFrame)],
    ),
    "another life's chain with a certificate that does not read": (
        RefusalCode.MALFORMED,
        lambda scene, honest: [
            CertificateFrame(b"\1x") if isinstance(one, CertificateFrame) else one for one in honest
        ],
    ),
    "a list by a stranger": (
        RefusalCode.UNKNOWN_AUTHOR,
        with_list(lambda _fleet: SigningKey(b"?" * 32), nobody),
    ),
    "a list that does not read": (
        RefusalCode.MALFORMED,
        with_list(lambda fleet: fleet.hub_key, lambda _scene: b"garbage"),
    ),
    "a document that does not read": (
        RefusalCode.MALFORMED,
        lambda scene, honest: [
            DocumentFrame(b"\1x") if isinstance(one, DocumentFrame) else one for one in honest
        ],
    ),
}


class Liar(Line):
    """Lies to whoever has a new identity promised."""

    lie: Lie | None = None
    scene: Scene

    async def exchange(self, messages: Sequence[Message]) -> Answer:
        answer = await super().exchange(messages)
        hello = messages[0]
        assert isinstance(hello, Hello)
        if self.lie is None or hello.replica == self.scene.before.replica:
            return answer
        return dataclasses.replace(answer, messages=tuple(self.lie(self.scene, [*answer.messages])))


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


@pytest_asyncio.fixture
async def line(
    paired: Terminal, database: Database, hub: TestHub, fleet: Fleet, tmp_path: Path
) -> AsyncIterator[Liar]:
    """Of a terminal on an old copy, which has sealed a block beside the hub's and taken a tap since.

    It has an identity promised, and the hub has a chain of another life of it.
    """
    opened, terminal = await restored(paired, database, hub, tmp_path)
    ledger, identity = enrolled(terminal).ledger, enrolled(terminal).identity
    await asyncio.to_thread(ride, terminal, AFTER)
    own = await asyncio.to_thread(ledger.seal)
    assert own is not None
    await asyncio.to_thread(ride, terminal, AFTER, 100)
    other = fleet.enrol(terminal=identity.certificate.terminal)
    block = seal(other.keys.signing, fleet.id, [fare(other, 1, 5)], GENESIS)
    await asyncio.wrap_future(hub.ledger.merge([block.raw], [other.certificate]))
    line = Liar(hub, terminal)
    line.scene = Scene(fleet, identity, other, fleet.enrol(), own.raw)
    await line.renew([])
    yield line
    await asyncio.to_thread(opened.close)


def stands(terminal: Terminal) -> tuple[object, ...]:
    """What a lie must not change."""
    now = enrolled(terminal)
    return (
        terminal.promised,
        now.identity,
        now.ledger.own_head(),
        now.ledger.status()["open"],
        now.ledger.quarantined(9),
        [now.ledger.view(card).balance_minor for card in CARDS],
        now.ledger.settled(),
    )


async def honest_in_the_end(line: Liar) -> None:
    line.lie = None
    assert (await line.sync()).complete
    assert line.terminal.promised is None
    assert await balances(line.hub) == [750, 500, 650]
    assert await agree(line.terminal, line.hub)


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_while_it_takes_up_its_next_identity_changes_nothing_of_its_own(
    name: str, line: Liar
) -> None:
    code, line.lie = LIES[name]
    before = await asyncio.to_thread(stands, line.terminal)
    for _ in range(2):
        with pytest.raises(AnswerRefused) as refusal:
            await line.sync()
        assert refusal.value.code is code
        assert str(refusal.value).isprintable()
        assert await asyncio.to_thread(stands, line.terminal) == before
    await honest_in_the_end(line)


@pytest.mark.parametrize("code", [RefusalCode.COME_AGAIN, RefusalCode.REVOKED, RefusalCode.MALFORMED])
async def test_a_hub_that_does_not_show_its_chain_is_asked_again(code: RefusalCode, line: Liar) -> None:
    line.lie = lambda _scene, honest: [*honest, Refusal(code, "Not now.")]
    before = await asyncio.to_thread(stands, line.terminal)
    with pytest.raises(HubRefused, match=r"The hub refused: Not now\."):
        await line.sync()
    assert await asyncio.to_thread(stands, line.terminal) == before
    await honest_in_the_end(line)


@pytest.mark.parametrize("lose", range(1, 6))
async def test_an_answer_that_is_lost_while_it_takes_up_does_no_harm(lose: int, line: Liar) -> None:
    line.lose = line.said + lose
    before = await asyncio.to_thread(stands, line.terminal)
    with pytest.raises(HubUnreachable):
        await line.sync()
    assert await asyncio.to_thread(stands, line.terminal) == before
    await honest_in_the_end(line)


async def test_another_terminals_chain_among_those_compared_takes_nothing_away(
    line: Liar, hub: TestHub
) -> None:
    """It may have had a copy of the storage; what it wrote otherwise is no reason to write less."""
    terminal, stranger = line.terminal, line.scene.stranger
    promised = terminal.promised
    assert promised is not None
    block = by_the_stranger(line.scene, b"")
    await asyncio.wrap_future(hub.ledger.merge([block], [stranger.certificate]))
    lied = Promised(promised.identity, (*promised.former, stranger.replica))
    await asyncio.to_thread(terminal.promise, lied, line.scene.before)
    await take_up(terminal, lied, line.exchange)
    await honest_in_the_end(line)
