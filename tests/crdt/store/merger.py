"""A hub process among several on one database server: `python -m tests.crdt.store.merger URL NUMBER BLOCKS`.

Merges terminal NUMBER's blocks one by one and books a top-up beside every fifth; says each when it is
acknowledged. What the server breaks off is done once more.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from crdt.block import Block
from crdt.errors import StoreFailed
from crdt.facts import Delta, Draft, Kind
from crdt.store.server import ServerDatabase
from tests.crdt import world
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.stores import open_ledger

TOPUP = Draft(Kind.TOPUP, 1000)
CARDS = 7
TRIES = 100


def blocks_of(number: int, count: int) -> list[Block]:
    """The blocks that the process of terminal `number` merges: two fares each, on cards others ride too."""
    author = world.terminal(number)
    deltas = [
        Delta(author.key.replica, seq, card(seq % CARDS), Kind.FARE, -10 * number, seq)
        for seq in range(1, 2 * count + 1)
    ]
    return author.blocks(deltas, [2] * count)


def insist(begin: Callable[[], Future[Any]]) -> None:
    """Do it until it is acknowledged."""
    for _ in range(TRIES):
        try:
            begin().result()
        except StoreFailed:
            continue
        return
    raise AssertionError("the server stays away")


def main(url: str, number: int, count: int) -> None:
    """Merge and book everything."""
    certificate = world.terminal(number).certificate
    with ServerDatabase.open(url, KEY, interval_s=0.2) as store:
        hub = open_ledger(store, os.urandom)
        for at, block in enumerate(blocks_of(number, count), 1):
            insist(partial(hub.merge, [block.raw], [certificate]))
            if at % 5 == 0:
                insist(partial(hub.append, card(at % CARDS), [TOPUP], at, request=f"{number}/{at}"))
            sys.stdout.write(f"{at}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
