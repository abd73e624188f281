"""The terminal of the settlement's benchmark: a process that loads what a terminal's program does, no more.

Run by `settle` with a descriptor to speak on: first come its `Papers`, then for each settlement BEGIN and an
answer to each pull.
"""

import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import edge.app  # noqa: F401 - the libraries of a terminal, which count for its memory
from crdt.certificate import AuthorCertificate
from crdt.settlement import parse_page, verify_page
from crdt.signing import SigningKey
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.terminal import TerminalLedger

ROUNDS = 2  # settlements: the first load, and an increment
BEGIN = "begin"  # the hub has all that is to be settled, and nothing else to do


class Papers(NamedTuple):
    """What the terminal is given before it begins."""

    path: str
    database_key: bytes
    fleet_public_key: bytes
    seed: bytes
    certificate: bytes
    hub_certificate: bytes


class Pull(NamedTuple):
    """One settlement, from the first page asked for to the swap."""

    seconds: float
    cpu_seconds: float  # of the terminal's process
    wire_bytes: int
    pages: int
    peak_rss_mb: float  # of the terminal's process, until then


def main() -> None:
    """Load ROUNDS settlements, each after BEGIN: ("pull", what it asks) goes out for each page, ("done", a
    Pull) at the end."""
    hub = Connection(int(sys.argv[1]))
    papers = Papers(*hub.recv())
    certificate = AuthorCertificate.decode(papers.certificate)
    settling = AuthorCertificate.decode(papers.hub_certificate).verify(papers.fleet_public_key)
    with Database.open(Path(papers.path), papers.database_key, layout=TERMINAL_LAYOUT) as database:
        ledger = TerminalLedger(database, papers.fleet_public_key, SigningKey(papers.seed), certificate)
        for _ in range(ROUNDS):
            hub.recv()
            hub.send(("done", tuple(_pull(ledger, hub, settling))))


def _pull(ledger: TerminalLedger, hub: Any, settling: AuthorCertificate) -> Pull:
    began_s, worked_s = time.perf_counter(), time.process_time()
    sizes = list(_pulled(ledger, hub, settling))
    seconds, cpu_seconds = time.perf_counter() - began_s, time.process_time() - worked_s
    return Pull(seconds, cpu_seconds, sum(sizes), len(sizes), _peak_rss_mb())


def _pulled(ledger: TerminalLedger, hub: Any, settling: AuthorCertificate) -> Iterator[int]:
    """The sizes of the pages, until one was final; the next is asked for before one is stored."""
    series, base, after = ledger.settled()
    hub.send(("pull", (series, base, tuple(after))))
    final = False
    while not final:
        raw = hub.recv_bytes()
        page = verify_page(parse_page(raw), settling)
        if not page.final:
            hub.send(("pull", (page.series, page.base, tuple(page.until))))
        final = ledger.install(page)
        yield len(raw)


def _peak_rss_mb() -> float:
    """Of this process since it began its program; getrusage(2) counts the parent's memory before exec too."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
