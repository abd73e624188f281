"""A fleet for the hub to carry: founded with many enrolled terminals and cards, without a pairing each."""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection

from crdt.block import NOMINAL_BLOCK_DELTAS, Block, seal
from crdt.certificate import AuthorCertificate, Limits
from crdt.cursor import START
from crdt.documents import FLEET_DOCUMENT
from crdt.facts import NO_CONTEXT, CardId, Delta, Kind, ReplicaId, TerminalId
from crdt.frontier import GENESIS
from crdt.settlement import NO_SERIES
from crdt.signing import SigningKey
from crdt.store.hub import HubLedger
from hub import enrolling, founding, settings, tables
from hub.authority import Authority, ClientCertificate
from tests.hub.processes import HubProcess
from tests.hub.tls import new_tls_key

LIMITS: Final = Limits(frozenset({Kind.FARE, Kind.OPENING}), 10_000, 10_000)


@dataclass(frozen=True)
class Member:
    """A paired terminal's papers; bytes in hex."""

    seed: str
    terminal: str
    certificate: str
    tls_pem: str


@dataclass(frozen=True)
class Fleet:
    """Everything that whoever plays the terminals needs; bytes in hex."""

    fleet: str
    root_pem: str
    tls_key_pem: str  # one for all: it is the certificates that differ
    series: str
    position: int  # the settlement that every terminal begins with
    fares_version: int
    cards: Sequence[tuple[str, int]]  # with the hub's numbers
    members: Sequence[Member]

    def part(self, number: int, parts: int) -> str:
        """The fleet with its share of the terminals, as JSON."""
        return json.dumps(asdict(self) | {"members": [asdict(one) for one in self.members[number::parts]]})


def found(hub: HubProcess, terminals: int, connections: int, cards: int, source: random.Random) -> Fleet:
    """Enrol terminals and meet cards in the database of a hub that is not up, and raise its limits to it.

    So many of them can connect, and are the members.
    """
    limits = f"connections = {connections + 16}\nconnections_per_address = {connections + 16}\n"
    text = hub.settings.read_text()
    hub.settings.write_text(text.replace("\n[announce]", f"{limits}\n[announce]"))
    configured = settings.load(hub.settings)
    tls_key = new_tls_key()
    with (
        founding.opened(configured, {}) as (database, secrets),
        founding.open_ledger(configured, database, secrets) as (authority, ledger),
    ):
        papers = database.write_and_wait(
            lambda sql: [_pair(sql, authority, tls_key.csr_pem, number) for number in range(connections)]
        )
        away = [_author(authority, number) for number in range(connections, terminals)]
        database.write_and_wait(lambda sql: _enter(sql, away))
        ledger.merge([], [*(author for _, author in papers), *away]).result()
        met = _meet(ledger, authority, [CardId(source.randbytes(7)) for _ in range(cards)])
        first = ledger.page(NO_SERIES, 0, START, 1).result()
        fares = ledger.document(FLEET_DOCUMENT).result()
    assert fares is not None
    return Fleet(
        fleet=authority.fleet.hex(),
        root_pem=authority.root_pem,
        tls_key_pem=tls_key.key_pem.decode(),
        series=first.series.hex(),
        position=first.position,
        fares_version=fares.version,
        cards=met,
        members=[member for member, _ in papers],
    )


def _pair(
    connection: Connection, authority: Authority, csr_pem: str, number: int
) -> tuple[Member, AuthorCertificate]:
    seed, name = os.urandom(32), f"bus {number}"
    papers: list[tuple[Member, AuthorCertificate]] = []

    def issue(terminal: TerminalId) -> tuple[ReplicaId, ClientCertificate]:
        author = authority.terminal_certificate(terminal, name, SigningKey(seed).public_key, LIMITS)
        client = authority.client_certificate(csr_pem, terminal, author.replica)
        papers.append((Member(seed.hex(), terminal.hex(), author.encode().hex(), client.pem), author))
        return author.replica, client

    enrolling.enrol(connection, name, b"", TerminalId(os.urandom(16)), issue, 0)
    return papers[0]


def _author(authority: Authority, number: int) -> AuthorCertificate:
    key = SigningKey(os.urandom(32))
    return authority.terminal_certificate(TerminalId(os.urandom(16)), f"bus {number}", key.public_key, LIMITS)


def _enter(connection: Connection, authors: Sequence[AuthorCertificate]) -> None:
    """Into the registry, as pairing each would; a certificate that nobody uses is no more than a number."""
    terminals = [
        {"terminal": one.terminal, "name": one.name, "replica": one.replica, "paired_ms": 0}
        for one in authors
    ]
    certificates = [
        {
            "serial": os.urandom(20).hex(),
            "terminal": one.terminal,
            "replica": one.replica,
            "paired_as": one.replica,
            "number": 1,
            "issued_ms": 0,
        }
        for one in authors
    ]
    if authors:
        connection.execute(tables.terminal.insert(), terminals)
        connection.execute(tables.client_certificate.insert(), certificates)


def _meet(ledger: HubLedger, authority: Authority, cards: Sequence[CardId]) -> list[tuple[str, int]]:
    """Open every card; their ids and numbers, in the order of their ids."""
    key = SigningKey(os.urandom(32))
    author = authority.terminal_certificate(TerminalId(os.urandom(16)), "kiosk", key.public_key, LIMITS)
    openings = [
        Delta(key.replica, seq, card, Kind.OPENING, 1_000, 1_790_000_000_000, NO_CONTEXT)
        for seq, card in enumerate(cards, 1)
    ]
    chain: list[Block] = []
    for at in range(0, len(openings), NOMINAL_BLOCK_DELTAS):
        previous = chain[-1].hash if chain else GENESIS
        chain.append(seal(key, authority.fleet, openings[at : at + NOMINAL_BLOCK_DELTAS], previous))
    ledger.merge([block.raw for block in chain], [author]).result()
    met = ledger.cards(limit=len(cards)).result()
    return [(row.card.hex(), row.number) for row in met]
