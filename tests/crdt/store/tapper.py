"""A program that taps and says so, for tests that kill it: `python -m tests.crdt.store.tapper FILE [BYTES]`.

Prints the number of each tap after it is durable. With BYTES no file may grow beyond that: a full disk.
"""

import itertools
import resource
import sys
from pathlib import Path

from crdt.errors import StoreError
from crdt.facts import Draft, Kind
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.terminal import TerminalLedger
from tests.crdt import world
from tests.crdt.store.fleet import KEY, card


def main(path: str, max_file_bytes: str = "") -> int:
    """Tap until killed; 3 when the disk is full."""
    author = world.TERMINALS[0]
    with Database.open(Path(path), KEY, layout=TERMINAL_LAYOUT) as database:
        ledger = TerminalLedger(database, world.FLEET_KEY.public_key, author.key, author.certificate)
        if max_file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(max_file_bytes), resource.RLIM_INFINITY))
        for number in itertools.count(ledger.status()["head_seq"] + 1):
            try:
                tap(ledger, number)
                sys.stdout.write(f"{number}\n")
                sys.stdout.flush()
                if number % 7 == 0:
                    ledger.seal()
            except StoreError as error:
                sys.stderr.write(str(error))
                return 3 if _refuses_everything(ledger, database) else 4
    return 0


def tap(ledger: TerminalLedger, number: int) -> None:
    """Tap `number`: its number is its fare and its time."""
    drafts = [Draft(Kind.FARE, -number)]
    ledger.transact(card(number % 5), lambda _view: (drafts, None), number)


def _refuses_everything(ledger: TerminalLedger, database: Database) -> bool:
    """After a failed write nothing is tried again, by nobody."""
    refused = 0
    for attempt in (
        lambda: tap(ledger, 1),
        lambda: ledger.view(card(1)),
        lambda: database.put_secret("a", b"b"),
    ):
        try:
            attempt()
        except StoreError:
            refused += 1
    return refused == 3 and database.failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
