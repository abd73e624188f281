"""What tests of ledgers on servers have in common."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from crdt.cursor import START, beginning
from crdt.digest import state_digest
from crdt.facts import CardId, CardState, Draft, Kind, ReplicaId
from crdt.frontier import Head
from crdt.ledger import Ledger
from crdt.settlement import NO_SERIES, Page, verify_page
from crdt.store.hub import HubLedger
from crdt.store.schema import BLOCK
from crdt.store.server import ServerDatabase
from tests import forked
from tests.crdt import world
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.merger import CARDS, blocks_of
from tests.crdt.store.servers import SERVERS
from tests.crdt.store.stores import INTERVAL_S, open_ledger

ROOT = Path(__file__).parents[3]
BLOCKS = 30
ONE = world.TERMINALS[0]
PATIENCE_S = 60  # a bound on waiting, not a measurement
TOPUP = Draft(Kind.TOPUP, 1000)

on_servers = pytest.mark.parametrize("server", list(SERVERS), indirect=True)
on_mortals = pytest.mark.parametrize("mortal", list(SERVERS), indirect=True)
on_postgresql = pytest.mark.parametrize("server", ["postgresql"], indirect=True)


@contextmanager
def hubs(url: str, count: int, **options: Any) -> Iterator[list[HubLedger]]:
    """As many hubs on one database, each with its own connections, as processes have them."""
    with ExitStack() as stack:
        stores = [
            stack.enter_context(ServerDatabase.open(url, KEY, **{"interval_s": INTERVAL_S, **options}))
            for _ in range(count)
        ]
        yield [open_ledger(store, os.urandom) for store in stores]


def store_of(hub: HubLedger) -> ServerDatabase:
    """The database under a ledger."""
    assert isinstance(hub._database, ServerDatabase)
    return hub._database


def until(true: Callable[[], bool], every_s: float = 0.01) -> None:
    """Wait for something that another thread, process or server does."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / every_s)):
        if true():
            return
        pause.wait(every_s)
    raise AssertionError("it does not come")


class CursorReader:
    """Reads a hub as a terminal does: from where it stands, only what has changed since."""

    def __init__(self) -> None:
        self.series = NO_SERIES
        self.position = 0
        self.cards: dict[CardId, CardState] = {}
        self.heads: dict[ReplicaId, Head] = {}
        self.ordinals: list[int] = []

    def pull(self, hub: HubLedger) -> None:
        """One settlement, by pages of two cards; and the blocks after the last one seen."""
        base, after = self.position, beginning(self.position) if self.position else START
        while True:
            page: Page = verify_page(hub.page(self.series, base, after, 2).result(), world.HUB)
            assert page.base == base, "a position that this hub has given was not recognised"
            self.series, after = page.series, page.until
            self.cards |= {row.card: row.state for row in page.rows}
            self.heads |= page.heads
            if page.final:
                break
        self.position = page.position
        last = self.ordinals[-1] if self.ordinals else 0
        query = select(BLOCK.c.ordinal).where(BLOCK.c.ordinal > last).order_by(BLOCK.c.ordinal)
        self.ordinals += store_of(hub).read_and_wait(lambda sql: list(sql.execute(query).scalars()))

    def digest(self) -> bytes:
        """Of what was read."""
        return state_digest(sorted(self.heads.items()), sorted(self.cards.items()))


def merger(url: str, number: int) -> subprocess.Popen[str]:
    """Another hub process, see merger.py."""
    return forked.Process(
        *("tests.crdt.store.merger", url, str(number), str(BLOCKS)), stdout=subprocess.PIPE, cwd=ROOT
    )


def check_against_the_model(hub: HubLedger, reader: CursorReader, processes: int) -> None:
    """Everything that the processes did is there once, and a reader by cursor has seen all of it."""
    model = Ledger(world.FLEET_KEY.public_key)
    own = hub.blocks_after(hub.replica, 0, 1 << 30).result()
    terminals = range(1, processes + 1)
    raws = [block.raw for number in terminals for block in blocks_of(number, BLOCKS)]
    certificates = [world.HUB, *(world.terminal(number).certificate for number in terminals)]
    report = model.merge([*raws, *own], certificates)
    assert not report.refused
    assert len(own) == processes * (BLOCKS // 5)
    assert hub.digest().result() == model.digest()
    assert hub.books().result() == model.books()
    assert hub.books().result().balance
    reader.pull(hub)
    assert reader.digest() == model.digest()
    every = select(BLOCK.c.ordinal).order_by(BLOCK.c.ordinal)
    stored = store_of(hub).read_and_wait(lambda sql: list(sql.execute(every).scalars()))
    assert reader.ordinals == stored
    assert len(stored) == len(raws) + len(own)
    until(lambda: hub.lag().result() == 0)
    rows = [delta for number in range(CARDS) for delta in hub.history(card(number), 1000).result()]
    assert len(rows) == len(set(rows)) == hub.totals().result().deltas
