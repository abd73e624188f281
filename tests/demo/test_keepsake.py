"""Real terminals give a real hub back the top-ups that it sold after its backup (invariants 3, 4, 5)."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from yarl import URL

from crdt.errors import RefusalCode
from crdt.facts import Draft, Kind
from crdt.frames import Ack, BlockFrame, Message, Refusal
from crdt.store.database import Database
from edge.addresses import HubAddress
from edge.courier import Export
from edge.delivery import MAX_PAUSE_RUNS
from edge.errors import HubUnreachable
from edge.exchange import Answer, ExchangeClient
from edge.identity import new_keys
from edge.pairing import Pairing, parse_code
from edge.sync import Delivery, Sync
from edge.terminal import Terminal
from edge.tls import client_context
from hub.courier import Import
from hub.evidence import Evidence
from hub.settings import HubSettings
from tests.demo.test_settings_documents import KEY, LIMITS, enrolled
from tests.hub import conftest as hub_fixtures
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD
from tests.hub.test_restoring import back_up, put_back, settings, top_up, up, waiting

__all__ = ["settings"]
write_settings = hub_fixtures.write_settings

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")


@pytest.fixture
def buses(tmp_path: Path) -> Iterator[list[Terminal]]:
    """Two terminals that are not paired yet."""
    with contextlib.ExitStack() as stack:
        yield [
            Terminal(stack.enter_context(Database.open(tmp_path / f"bus{number}.db", KEY)))
            for number in (1, 2)
        ]


@dataclass
class Bus:
    """A terminal at a hub that may get another port; it counts what it says, and may lose an answer."""

    depot: Depot
    terminal: Terminal
    name: str
    delivery: Delivery = field(default_factory=Delivery)
    exchanges: int = 0
    brought: int = 0
    """Blocks sent in full."""
    lose: bool = False
    """Whether the answer to the next blocks gets lost."""
    refused: RefusalCode | None = None
    """Why the hub does not take blocks."""

    @property
    def address(self) -> HubAddress:
        place = URL(self.depot.url)
        return HubAddress(str(place.host), int(place.port or 0))

    async def pair(self) -> None:
        keys = await asyncio.to_thread(new_keys, os.urandom)
        code = parse_code(await self.depot.invite())
        promised = await Pairing(self.address, LIMITS, "", os.urandom).run(code, keys, self.name, None)
        await asyncio.to_thread(self.terminal.enrol, promised.identity)

    async def run(self, *, hurried: bool = False) -> None:
        """One run of the real sync, over real TLS, to its end; `hurried`: because somebody has tapped."""
        now = enrolled(self.terminal)
        context = await asyncio.to_thread(client_context, now.identity)
        async with ExchangeClient(now.identity.fleet, now.identity.replica, context, LIMITS) as client:

            async def exchange(messages: Sequence[Message]) -> Answer:
                self.exchanges += 1
                blocks = sum(isinstance(message, BlockFrame) for message in messages)
                self.brought += blocks
                if blocks and self.refused is not None:
                    without = [message for message in messages if not isinstance(message, BlockFrame)]
                    answer = await client.exchange(self.address, without)
                    return replace(answer, messages=(Ack({}), Refusal(self.refused, "not now or never")))
                answer = await client.exchange(self.address, messages)
                if blocks and self.lose:
                    self.lose = False
                    raise HubUnreachable("The answer was lost.")
                return answer

            sync = Sync(self.terminal, now, exchange, dict, self.delivery, retry=not hurried)
            assert (await sync.run()).complete

    async def tap(self) -> None:
        ledger = enrolled(self.terminal).ledger
        fare = ([Draft(Kind.FARE, -250)], None)
        await asyncio.to_thread(ledger.transact, CARD, lambda _view: fare, 1_780_000_000_000)

    async def kept(self) -> int:
        """How many entries of hubs it keeps."""
        heads = await asyncio.to_thread(enrolled(self.terminal).ledger.keepsake.heads)
        return sum(head.seq for head in heads.values())


async def paired(depot: Depot, terminals: Sequence[Terminal]) -> list[Bus]:
    buses = [Bus(depot, terminal, f"Bus {number}") for number, terminal in enumerate(terminals, 1)]
    for bus in buses:
        await bus.pair()
    return buses


async def balance(depot: Depot) -> int:
    return await asyncio.wrap_future(depot.hub.ledger.balance(CARD))


async def agreed(depot: Depot, *buses: Bus) -> bool:
    """Whether all digests are the hub's, and the books balance everywhere."""
    digest = await asyncio.wrap_future(depot.hub.ledger.digest())
    ledgers = [enrolled(bus.terminal).ledger for bus in buses]
    same = {digest} == {await asyncio.to_thread(ledger.digest) for ledger in ledgers}
    books = [await asyncio.wrap_future(depot.hub.ledger.books())]
    books += [await asyncio.to_thread(ledger.books) for ledger in ledgers]
    return same and all(one.balance for one in books)


async def put_back_once(settings: HubSettings, buses: Sequence[Terminal], directory: Path) -> Bus:
    """The one bus of a hub that sold after its backup (`backup` in the directory), and was put back."""
    backup = directory / "backup"
    async with up(settings) as depot:
        (one,) = await paired(depot, buses[:1])
        await back_up(depot, backup)
        await top_up(depot, "request-first")
        await one.run()
    put_back(settings, backup)
    return one


async def test_a_hub_put_back_gets_its_top_ups_back_from_any_bus(
    settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """Everybody has the same again, the hub waits for nothing, and no top-up counts twice."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        one, other = await paired(depot, buses)
        await top_up(depot, "request-before")
        await back_up(depot, backup)
        for number in range(3):
            await top_up(depot, f"request-after-{number}")
        for bus in (one, other):
            await bus.run()
            assert await bus.kept() == 4
        await one.tap()
        await one.run(hurried=True)
        await top_up(depot, "request-lost")
        expected = await balance(depot) - 500

    put_back(settings, backup)
    async with up(settings) as depot:
        former = (await waiting(depot)).copy()
        assert sorted(former.values()) == [(0, 1), (1, 5)]
        one.depot = other.depot = depot
        await other.run()
        assert other.brought == 3
        await one.run()
        assert one.brought == 0, "it has come by the other bus"
        assert await balance(depot) == expected
        assert list((await waiting(depot)).values()) == [(4, 5)], "what nobody has is still waited for"
        await other.run()
        assert await agreed(depot, one, other)
        await top_up(depot, "request-anew")
        for bus in (one, other):
            bus.delivery = Delivery()
            await bus.run()
            assert await bus.kept() == 5, "of both identities"
        assert await agreed(depot, one, other)


async def test_put_back_twice_it_gets_the_entries_of_each_identity(
    settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """The second time it does not even know its identity of between: the terminal brings the certificate."""
    one = await put_back_once(settings, buses, tmp_path)
    async with up(settings) as one.depot:
        await top_up(one.depot, "request-second")
        one.delivery = Delivery()
        await one.run()
        assert await balance(one.depot) == 1000
        assert await one.kept() == 2
    put_back(settings, tmp_path / "backup")
    async with up(settings) as one.depot:
        one.delivery = Delivery()
        await one.run()
        assert await balance(one.depot) == 1000
        assert await waiting(one.depot) == {}
        assert await agreed(one.depot, one)


async def test_a_bus_that_is_paired_later_keeps_former_identities_too(
    settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        await top_up(depot, "request-first")
        await back_up(depot, backup)
    put_back(settings, backup)
    async with up(settings) as depot:
        await top_up(depot, "request-second")
        (one,) = await paired(depot, buses[:1])
        await one.run()
        await one.run()
        assert await one.kept() == 2


async def test_a_stick_from_a_bus_that_cannot_reach_the_hub_has_its_top_ups(
    settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """`farebox-tech export` there, `farebox-hub ledger import` here."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        (one,) = await paired(depot, buses[:1])
        await back_up(depot, backup)
        await top_up(depot, "request-first")
        await one.run()
        await one.tap()
    put_back(settings, backup)
    file = b"".join(await asyncio.to_thread(lambda: list(Export(one.terminal, {}).parts())))

    async def pieces() -> AsyncIterator[bytes]:
        yield file

    async with up(settings) as depot:
        evidence = Evidence(depot.hub.database, depot.hub.ledger)
        for new in (2, 0):
            done = await Import(depot.hub.ledger, evidence, depot.lost).run(pieces())
            assert (done.blocks, done.refused, done.missing, done.trouble) == (new, 0, [], "")
        assert await balance(depot) == 250
        assert await waiting(depot) == {}


async def test_invariant_6_an_answer_that_gets_lost_costs_nothing(
    settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """The hub has the blocks, the terminal does not know: the next run says so, and brings nothing again."""
    one = await put_back_once(settings, buses, tmp_path)
    async with up(settings) as one.depot:
        one.lose = True
        with pytest.raises(HubUnreachable):
            await one.run()
        await one.run()
        assert one.brought == 1
        assert await balance(one.depot) == 500
        assert await agreed(one.depot, one)


async def test_keeping_costs_no_exchange_where_the_hub_has_booked_nothing(
    settings: HubSettings, buses: list[Terminal]
) -> None:
    """A tap's run asks for nothing, and where the hub sells all the time only every so many runs do."""
    async with up(settings) as depot:
        (one,) = await paired(depot, buses[:1])
        await one.run()
        one.exchanges = 0
        await one.run()
        assert one.exchanges == 1
        await top_up(depot, "request-first")
        await one.run(hurried=True)
        assert (one.exchanges, await one.kept()) == (2, 0)
        await one.run()
        assert (one.exchanges, await one.kept()) == (4, 1)
        sold = 1
        for pause in (1, 2, 4, 8, 16, MAX_PAUSE_RUNS, MAX_PAUSE_RUNS):
            exchanges = one.exchanges
            for _ in range(pause):
                sold += 1
                await top_up(depot, f"request-{sold}")
                await one.run()
            assert one.exchanges == exchanges + pause
            assert await one.kept() < sold
            await one.run()
            assert (one.exchanges, await one.kept()) == (exchanges + pause + 2, sold)


async def test_what_a_hub_seldom_sells_is_kept_within_two_runs(
    settings: HubSettings, buses: list[Terminal]
) -> None:
    """Of a fleet of one bus, a broken hub loses what it sold in the last heartbeats, not in ten minutes."""
    async with up(settings) as depot:
        (one,) = await paired(depot, buses[:1])
        for sold in range(1, 5):
            await top_up(depot, f"request-{sold}")
            for _ in range(2):
                await one.run()
            assert await one.kept() == sold
            for _ in range(4):
                await one.run()


async def test_what_the_hub_does_not_take_back_is_offered_more_and_more_seldom(
    settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """Invariant 4: the terminal is online all the same; no refusal, of something else maybe, is for good."""
    one = await put_back_once(settings, buses, tmp_path)
    async with up(settings) as one.depot:
        one.refused = RefusalCode.REVOKED
        brought = []
        for _ in range(7):
            await one.run()
            brought.append(one.brought)
        assert brought == [1, 1, 2, 2, 2, 3, 3]
        one.refused = None
        for _ in range(4):
            await one.run()
        assert await balance(one.depot) == 500
        assert await agreed(one.depot, one)


async def test_what_the_hub_has_no_time_for_is_offered_again(
    settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """Invariant 4: only what it has judged is not; a top-up comes back as soon as the hub takes it."""
    one = await put_back_once(settings, buses, tmp_path)
    async with up(settings) as one.depot:
        one.refused = RefusalCode.COME_AGAIN
        for _ in range(2):
            await one.run()
        assert await balance(one.depot) == 0
        one.refused = None
        await one.run()
        assert await balance(one.depot) == 500
