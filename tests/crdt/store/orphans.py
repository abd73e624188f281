"""What a hub process leaves that ends once its transaction is written, before background work has begun."""

import threading
from collections.abc import Callable, Iterable

from sqlalchemy import Connection

from crdt.block import Block
from crdt.certificate import AuthorCertificate
from crdt.store import comparing, merging, projection
from crdt.store.admission import prepare
from crdt.store.authors import Authors
from crdt.store.hub import HubLedger
from crdt.store.server import ServerDatabase
from crdt.store.store import Store
from tests.crdt import world
from tests.crdt.store.branches import COMMON, MINE, ONE, THEIRS, as_of, give, renewed
from tests.crdt.store.fleet import KEY, card

NOW = renewed(ONE)  # the identity under which the terminal writes its branch again
AGAIN = NOW.blocks(as_of(THEIRS, NOW), [])
BALANCE_MINOR = 500 - 250 - 70  # of card 1, whoever wrote the last of it
PATIENCE_S = 60


def adopted(hub: HubLedger) -> None:
    """The operator adopts a branch of a terminal."""
    hub.merge([], world.CERTIFICATES).result()
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    hub.adopt([branch[0].hash]).result()
    assert hub.balance(card(1)).result() == BALANCE_MINOR


def elsewhere(url: str, work: Callable[[Store], object]) -> None:
    """Another process does this, and ends."""
    with ServerDatabase.open(url, KEY) as store:
        work(store)


def merged(store: Store, blocks: Iterable[Block], certificates: Iterable[AuthorCertificate] = ()) -> None:
    """A process merges the blocks, and is told nothing of it; another one enters them in the history."""
    authors = Authors(world.FLEET_KEY.public_key, [])
    presented = [world.HUB, *world.CERTIFICATES, *certificates]
    raws = [block.raw for block in blocks]
    prepared = store.read_and_wait(lambda sql: prepare(sql, authors, raws, presented))

    def work(connection: Connection) -> None:
        assert merging.merge_prepared(connection, authors, prepared, 9).admitted.blocks
        projection.catch_up(connection, 9)

    store.write_and_wait(work)


def answered(store: Store) -> bool:
    """Whether the hub was asked to compare, and has."""
    requests = store.read_and_wait(comparing.requests)
    return requests.asked > 0 and not requests.open


class Hold:
    """Called on the writer's thread, it keeps that from all that follows until it is let go."""

    def __init__(self) -> None:
        self._reached, self._gone = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Wait to be let go, the first time."""
        self._reached.set()
        assert self._gone.wait(PATIENCE_S)

    def wait(self) -> None:
        """Until the writer has come here."""
        assert self._reached.wait(PATIENCE_S)

    def let_go(self) -> None:
        """For good."""
        self._gone.set()
