"""The real terminal's sync against a real hub: one document for both (issue 3, "Settings documents")."""

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection
from yarl import URL

from crdt.frames import Hello, Message
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.store.inline import InlineDatabase
from crdt.store.schema import DOCUMENT
from crdt.terminal_document import TERMINAL_SETTING_NAMES
from edge.addresses import HubAddress
from edge.errors import HubUnreachable
from edge.exchange import Answer, ExchangeClient
from edge.https import Limits
from edge.identity import new_keys
from edge.pairing import Pairing, parse_code
from edge.sync import Delivery, Outcome, Sync
from edge.terminal import Enrolment, Terminal
from edge.tls import client_context
from hub import tables
from hub.answering import Answerer
from hub.heard import Heard
from hub.terminal_documents import TerminalDocuments
from tests.edge.authority import Fleet
from tests.hub import conftest as hub_fixtures
from tests.hub.conftest import Depot
from tests.simulation.inline_loop import InlineLoop

founded, depot, write_settings = hub_fixtures.founded, hub_fixtures.depot, hub_fixtures.write_settings
fleet_founded = hub_fixtures.fleet_founded

NAME = "Bus 12 front"
KEY = bytes(range(32))
LIMITS = Limits(total_s=20, read_s=20)
T = TypeVar("T")


def enrolled(terminal: Terminal) -> Enrolment:
    assert terminal.enrolment is not None
    return terminal.enrolment


def texts(terminal: Terminal) -> dict[str, str]:
    return {name: terminal.text(name, "") for name in TERMINAL_SETTING_NAMES}


@dataclass
class Both:
    """A terminal and its hub."""

    depot: Depot
    terminal: Terminal
    delivery: Delivery = dataclasses.field(default_factory=Delivery)

    @property
    def address(self) -> HubAddress:
        place = URL(self.depot.url)
        return HubAddress(str(place.host), int(place.port or 0))

    async def pair(self, terminal: Terminal | None = None) -> None:
        """Pair by a code; a terminal that has an identity is paired anew."""
        terminal = self.terminal = terminal or self.terminal
        before = terminal.enrolment and terminal.enrolment.identity.certificate.terminal
        keys = await asyncio.to_thread(new_keys, os.urandom)
        pairing = Pairing(self.address, LIMITS, "", os.urandom)
        code = parse_code(await self.depot.invite())
        promised = await pairing.run(code, keys, NAME, before or None)
        await asyncio.to_thread(terminal.enrol, promised.identity)

    async def sync(self) -> Outcome:
        """One run of the real sync over real TLS."""
        now = enrolled(self.terminal)
        context = await asyncio.to_thread(client_context, now.identity)
        async with ExchangeClient(now.identity.fleet, now.identity.replica, context, LIMITS) as client:
            return await Sync(
                self.terminal,
                now,
                lambda messages: client.exchange(self.address, messages),
                dict,
                self.delivery,
            ).run()

    async def on_bus(self, **changes: str) -> None:
        await asyncio.to_thread(self.terminal.edit, changes)

    async def at_hub(self, **changes: str) -> None:
        await self.depot.ask("POST", "/terminals/settings", {"terminal": NAME, "changes": changes})

    async def shown(self) -> dict[str, Any]:
        view: dict[str, Any] = await self.depot.ask("GET", f"/terminals/settings?terminal={quote(NAME)}")
        return view

    async def agree(self) -> dict[str, str]:
        """What both say; fails where they do not, or the hub does not know that they do."""
        view = await self.shown()
        assert view["values"] == texts(self.terminal)
        assert view["waiting"] == []
        return texts(self.terminal)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with Database.open(tmp_path / "terminal.db", KEY) as database:
        yield Terminal(database)


@pytest.fixture
async def both(depot: Depot, terminal: Terminal) -> Both:
    both = Both(depot, terminal)
    await both.pair()
    await both.sync()
    return both


async def test_what_an_operator_sets_has_effect_on_the_bus_after_one_sync(both: Both) -> None:
    """And the hub says until the terminal's next word which of it the terminal has not fetched."""
    await both.at_hub(route="12", notes="spare reader\nin the cab")
    assert (await both.shown())["waiting"] == ["route", "notes"]
    await both.sync()
    assert both.terminal.text("route", "7") == "12"
    await both.sync()
    assert (await both.agree())["notes"] == "spare reader\nin the cab"
    await both.at_hub(route="13")
    view = await both.shown()
    assert (view["waiting"], view["fetched"]["route"]) == (["route"], "12")


async def test_what_a_technician_sets_offline_is_at_the_hub_after_one_sync(both: Both) -> None:
    await both.on_bus(door="rear", vehicle="bus 12")
    await both.sync()
    assert (await both.agree())["door"] == "rear"
    assert both.delivery.notes == ""


async def test_both_edit_apart_and_lose_nothing(both: Both) -> None:
    """Other fields are kept, of the same field one wins, the same one on both sides."""
    await both.at_hub(route="12", notes="from the hub", reader="i2c")
    await both.on_bus(route="13", notes="from the bus", door="rear")
    await both.sync()
    said = await both.agree()
    assert (said["reader"], said["door"]) == ("i2c", "rear")
    assert said["route"] in ("12", "13")
    assert said["notes"] in ("from the hub", "from the bus")
    await both.sync()
    assert await both.agree() == said


async def test_the_document_is_sent_only_when_it_is_another(both: Both) -> None:
    """A run in which nobody has set anything has no document in it, either way."""
    heard: list[str] = []
    now = enrolled(both.terminal)
    context = await asyncio.to_thread(client_context, now.identity)
    async with ExchangeClient(now.identity.fleet, now.identity.replica, context, LIMITS) as client:

        async def exchange(messages: Sequence[Message]) -> Answer:
            answer = await client.exchange(both.address, messages)
            heard.extend(type(message).__name__ for message in [*messages, *answer.messages])
            return answer

        await both.sync()
        await Sync(both.terminal, now, exchange, dict).run()
    assert "PageFrame" in heard
    assert "DocumentFrame" not in heard


async def test_a_terminal_that_is_paired_again_keeps_its_document(both: Both) -> None:
    """A new replica of the same terminal, with edits that the hub has not seen."""
    await both.on_bus(door="rear")
    before = enrolled(both.terminal).identity
    await both.pair()
    assert enrolled(both.terminal).identity.replica != before.replica
    await both.at_hub(route="12")
    await both.sync()
    assert await both.agree() == {"route": "12", "door": "rear", "vehicle": "", "reader": "", "notes": ""}


async def test_a_new_sd_card_gets_what_was_set_of_the_terminal(both: Both, tmp_path: Path) -> None:
    """What was set on it before it met the hub again is not lost: two histories of one writer."""
    await both.on_bus(route="12", door="rear")
    await both.sync()
    database = await asyncio.to_thread(Database.open, tmp_path / "new.db", KEY)
    try:
        await both.pair(await asyncio.to_thread(Terminal, database))
        assert texts(both.terminal)["door"] == ""
        await both.on_bus(vehicle="bus 12")
        await both.sync()
        await both.sync()
        said = await both.agree()
        assert (said["route"], said["door"], said["vehicle"]) == ("12", "rear", "bus 12")
    finally:
        await asyncio.to_thread(database.close)


# ---- Whatever happens on the way ----

FIELDS = st.sampled_from(["route", "door", "notes"])
TEXTS = st.sampled_from(["", "1", "2", "3"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hub"), FIELDS, TEXTS),
        st.tuples(st.just("bus"), FIELDS, TEXTS),
        st.tuples(st.just("meet"), st.sampled_from([0, 1, 2, 9]), st.booleans()),
    ),
    max_size=12,
)


def _done(future: Future[T]) -> Awaitable[T]:
    async def result() -> T:
        return future.result()

    return result()


class Inline:
    """A terminal and a hub without sockets or threads: the real sync run, answers and databases."""

    def __init__(self) -> None:
        fleet = Fleet(1)
        self.loop = InlineLoop()
        self.bus_database = InlineDatabase.open(None, KEY)
        self.hub_database = InlineDatabase.open(None, KEY)
        self.hub_database.create(tables.metadata)
        self.terminal = Terminal(cast(Database, self.bus_database))
        self.terminal.enrol(fleet.enrol())
        ledger = HubLedger(self.hub_database, fleet.key.public_key, fleet.hub_key, fleet.hub_certificate)
        ledger.enrol(self.identity.certificate).result()
        self.documents = TerminalDocuments(self.hub_database, fleet.id, fleet.hub_key, _done)
        self.answerer = Answerer(ledger, 100, _done, lambda: 0, self.documents)
        self.ledger = ledger

    @property
    def identity(self) -> Any:
        return enrolled(self.terminal).identity

    @property
    def own(self) -> Any:
        return self.identity.certificate.terminal

    def close(self) -> None:
        self.bus_database.close()
        self.hub_database.close()

    def edit(self, side: str, name: str, text: str) -> None:
        if side == "bus":
            self.terminal.edit({name: text})
        else:
            self.loop.run(self.documents.edit(self.own, {name: text}))

    def meet(self, exchanges: int = 9, *, heard: bool = True) -> None:
        """A sync run whose connection fails after so many exchanges, before or after the hub has heard."""
        left = exchanges

        async def exchange(messages: Sequence[Message]) -> Answer:
            nonlocal left
            left -= 1
            if left < 0 and not heard:
                raise HubUnreachable("lost on the way")
            said = Heard(self.identity.replica, NAME, self.own)
            for message in messages:
                said.take(message)
            answer = await self.answerer.answer(said)
            if left < 0:
                raise HubUnreachable("lost on the way back")
            return Answer(
                Hello(self.ledger.fleet, self.ledger.replica, answer.frontier), tuple(answer.messages), 0, 0
            )

        run = Sync(self.terminal, enrolled(self.terminal), exchange, dict)
        with suppress(HubUnreachable):
            self.loop.run(run.run())

    def at_hub(self) -> dict[str, str]:
        return dict(self.loop.run(self.documents.kept(self.own)).texts)


@given(STEPS)
@settings(max_examples=60)
def test_whatever_was_typed_and_lost_on_the_way_both_agree_when_they_meet(
    steps: list[tuple[Any, ...]],
) -> None:
    """One run without a fault makes them equal. What only one side has typed since they agreed stands."""
    with closing(Inline()) as world:
        typed: dict[str, dict[str, str]] = {"hub": {}, "bus": {}}
        for kind, *more in steps:
            if kind == "meet":
                world.meet(more[0], heard=more[1])
            else:
                world.edit(kind, *more)
                typed[kind][more[0]] = more[1]
        world.meet()
        said = texts(world.terminal)
        assert world.at_hub() == said
        for name in ("route", "door", "notes"):
            words = {side[name] for side in typed.values() if name in side} or {""}
            assert said[name] in words
        world.edit("bus", "vehicle", "12")
        world.edit("hub", "door", "9")
        world.meet()
        assert world.at_hub() == texts(world.terminal) == said | {"vehicle": "12", "door": "9"}


RESTORES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["hub", "bus"]), FIELDS, TEXTS),
        st.tuples(st.sampled_from(["save hub", "save bus", "restore hub", "restore bus", "meet"])),
    ),
    max_size=14,
)


@given(RESTORES)
@settings(max_examples=60)
def test_also_when_either_side_is_put_back_from_a_backup(steps: list[tuple[Any, ...]]) -> None:
    """Two histories of one writer deny each other, and end: both agree, and go on being able to set."""
    with closing(Inline()) as world:
        saved: dict[str, Any] = {}
        for kind, *more in steps:
            if kind in ("hub", "bus"):
                world.edit(kind, *more)
            elif kind == "meet":
                world.meet()
            else:
                _backup(world, saved, *kind.split())
        world.meet()
        assert world.at_hub() == texts(world.terminal)
        for side in ("hub", "bus"):
            world.edit(side, "reader", f"i2c,{side}")
            world.meet()
            assert world.at_hub() == texts(world.terminal)
            assert world.at_hub()["reader"] == f"i2c,{side}"


def _backup(world: Inline, saved: dict[str, Any], what: str, side: str) -> None:
    """Keep the rows of one side's documents, or put back what was kept last."""
    database, table = {
        "hub": (world.hub_database, tables.terminal_document),
        "bus": (world.bus_database, DOCUMENT),
    }[side]
    if what == "save":
        saved[side] = database.read(
            lambda sql: [row._asdict() for row in sql.execute(table.select())]
        ).result()
    elif side in saved:

        def put_back(sql: Connection) -> None:
            sql.execute(table.delete())
            for row in saved[side]:
                sql.execute(table.insert().values(row))

        database.write(put_back).result()
        if side == "bus":
            world.terminal = Terminal(cast(Database, database))
