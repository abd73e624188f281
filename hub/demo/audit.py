"""Reads a stopped hub's ledger from its disk, block by block, and adds it up with the reference join.

Nothing the hub has worked out is believed here: each block's signature, author and chain are checked again,
and balances, books and digest come from the blocks alone.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crdt.block import Block, contents
from crdt.ledger import Ledger
from crdt.signing import SigningKey
from crdt.store.blocks import authors_of, newest_first
from crdt.store.database import Database
from hub.founding import load_secrets
from hub.keyfile import read_key

from .compare import Fact, LedgerView
from .errors import DemoError


@dataclass(frozen=True, slots=True)
class Audit:
    """What is in the hub's blocks: single facts, sums, and sentences about what does not hold."""

    facts: tuple[Fact, ...]
    view: LedgerView
    problems: tuple[str, ...]


def audit(database: Path, key_file: Path) -> Audit:
    """Reads the ledger; the hub must not be running. Waits for the disk; LedgerError when it cannot."""
    ledger, blocks = _rebuild(database, read_key(key_file, os.environ))
    report = ledger.merge(block.raw for block in blocks)
    problems = [f"A block in the hub's database does not hold: {refused.error}" for refused in report.refused]
    if report.known:
        problems.append(f"The hub's database has {report.known} blocks twice.")
    balances = {card.hex().upper(): state.balance_minor for card, state in ledger.cards().items()}
    view = LedgerView("the hub's disk", ledger.digest().hex(), 0, ledger.books().balance, balances)
    return Audit(tuple(_facts(blocks)), view, tuple(problems))


def _rebuild(path: Path, key: bytes) -> tuple[Ledger, list[Block]]:
    """An empty reference ledger that knows the authors, and all blocks of the database."""
    with Database.open(path, key) as database:
        secrets = load_secrets(database)
        if secrets is None:
            raise DemoError(f"There is no fleet in {path}.")
        ledger = Ledger(SigningKey(secrets.fleet_key).public_key)
        blocks = database.wait(database.read(lambda connection: list(newest_first(connection))))
        authors = database.wait(database.read(authors_of))
    ledger.merge((), authors.values())
    return ledger, blocks


def _facts(blocks: list[Block]) -> Iterator[Fact]:
    for block in blocks:
        header = block.header
        for delta in contents(block).deltas(header.replica, header.first_seq):
            card = delta.card.hex().upper()
            yield Fact(delta.replica.hex(), delta.seq, card, delta.kind.name.lower(), delta.amount_minor)
