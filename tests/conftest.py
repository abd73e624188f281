"""Checks around every test: it leaves nothing behind, and the event loop never waits for a disk or a lock."""

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext

import pytest
import pytest_asyncio
import sqlcipher3.dbapi2
from blockbuster import BlockBuster, BlockBusterFunction
from hypothesis import HealthCheck, settings

from tests import leaks
from tests.repository import ROOT
from tests.roots import spare_roots

# A slow machine is no bug, so no profile has deadlines. CI runs the same examples every time; a search for
# new ones is `tests/run --hypothesis-profile=thorough`.
_COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("farebox", _COMMON)
settings.register_profile("ci", _COMMON, derandomize=True)
settings.register_profile("thorough", _COMMON, max_examples=5000)
settings.load_profile("ci" if os.environ.get("CI") else "farebox")

spare_roots()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what it starts in the background ignore Ctrl-C; programs that tests press it for must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.crdt.store.lasting"]

OUR_PACKAGES = ["crdt", "edge", "hardware", "hub"]

LONGEST_FIRST = (
    "tests/test_newcomer.py",
    "tests/powercut/test_powercut.py",
    "tests/powercut/test_faults.py",
    "tests/simulation/test_simulation.py",
    "tests/simulation/copies/test_copies.py",
    "tests/crdt/store/test_hub.py",
    "tests/demo/test_headless.py",
    "tests/browser/test_dashboard.py",
    "tests/crdt/store/test_revoking.py",
    "tests/crdt/test_ledger.py",
    "tests/browser/test_demo.py",
    "tests/demo/test_campaign.py",
    "tests/crdt/store/test_server_away.py",
    "tests/bench/test_bench.py",
    "tests/crdt/store/test_lost_time.py",
    "tests/crdt/store/test_shared.py",
    "tests/crdt/fuzz/test_fuzz.py",
    "tests/simulation/test_planted_bugs.py",
    "tests/hub/test_server_store.py",
    "tests/hub/test_cli.py",
)
"""Files that take tens of seconds: begun last, one would keep a whole run waiting."""

_CURSOR_CALLS = ("execute", "executemany", "executescript", "fetchone", "fetchmany", "fetchall")
_CONNECTION_CALLS = ("execute", "executemany", "executescript", "commit", "rollback")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; and every async test gets the checks of its event loop, right after the others."""
    places = {ROOT / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    for item in items:
        if pytest_asyncio.is_async_test(item):
            names = item.fixturenames
            first = names.index("_no_leaks") + 1
            names[first:first] = ["_no_leaked_tasks"]
            if item.get_closest_marker("may_block") is None:
                names[first + 1 : first + 1] = ["_no_blocking_calls"]


@pytest.fixture(scope="session", autouse=True)
def _no_leaks_at_the_end() -> Iterator[None]:
    """The fixtures that live longer than one test end cleanly too."""
    # What is alive stays out of the collection after each test, which takes 1 ms then, not 50: see no_leaks.
    gc.collect()
    gc.freeze()
    with leaks.no_leaks():
        yield
        gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _programs_are_ready(_no_leaks_at_the_end: None) -> Iterator[None]:
    """Where a test of this run starts programs, they are forked from one that is ready."""
    forked = sys.modules.get("tests.forked")
    with nullcontext() if forked is None else forked.ready():
        yield


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Threads, sockets, files and child processes end with the test that started them."""
    with leaks.no_leaks():
        yield


@pytest_asyncio.fixture
async def _no_leaked_tasks() -> AsyncIterator[None]:
    """Tasks end with the test that started them, and every exception in one is seen by somebody."""
    async with leaks.no_leaked_tasks():
        yield


@pytest.fixture
def _no_blocking_calls() -> Iterator[None]:
    """Our code does not wait for a disk, a database, a name server or a lock in the event loop (invariant 7).

    Code of the tests themselves may. A test of something that blocks by design says so:
    `@pytest.mark.may_block("reason")`.
    """
    guard = BlockBuster(OUR_PACKAGES)
    for owner, names in (
        (sqlcipher3.dbapi2.Cursor, _CURSOR_CALLS),
        (sqlcipher3.dbapi2.Connection, _CONNECTION_CALLS),
    ):
        for name in names:
            function = BlockBusterFunction(owner, name, scanned_modules=OUR_PACKAGES)
            guard.functions[function.full_name] = function
    for name in ("os.fsync", "socket.getaddrinfo"):
        guard.functions[name] = BlockBusterFunction(None, name, scanned_modules=OUR_PACKAGES)
    guard.activate()
    yield
    guard.deactivate()
