"""The database servers of a whole run: one of each kind, begun for the first test that needs it.

A pytest plugin. Where a server ends by itself, the test that fails of it shows the end of its log, and the
next test finds a fresh one.
"""

from collections.abc import Generator, Iterator
from contextlib import ExitStack

import pytest

from tests.crdt.store.servers import SERVERS, Server
from tests.crdt.store.stores import KINDS

_STORE = "--store"
_RUNNING = pytest.StashKey[dict[str, Server]]()


@pytest.fixture(scope="session")
def _running(pytestconfig: pytest.Config) -> Iterator[ExitStack]:
    """Stops and removes what was started, after the last test."""
    pytestconfig.stash[_RUNNING] = {}
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest, pytestconfig: pytest.Config, _running: ExitStack) -> Server | None:
    """Where a hub keeps its ledger, one after the other: None for a file, and each kind of server.

    The databases of one test are not those of another.
    """
    return _of_kind(request.param, pytestconfig, _running)


@pytest.fixture(scope="session")
def hub_server(pytestconfig: pytest.Config, _running: ExitStack) -> Server | None:
    """Where all hubs of a run keep their ledgers: what `--store` names, and a file (None) without."""
    return _of_kind(pytestconfig.getoption(_STORE), pytestconfig, _running)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`tests/run tests/hub --store mariadb`."""
    parser.addoption(_STORE, choices=KINDS, default="file", help="where hubs that tests start keep ledgers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is of a file is not asked of a server."""
    if config.getoption(_STORE) != "file":
        left_out = [item for item in items if item.get_closest_marker("in_file")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _of_kind(kind: str, config: pytest.Config, running: ExitStack) -> Server | None:
    if kind == "file":
        return None
    servers = config.stash[_RUNNING]
    if kind not in servers:
        servers[kind] = running.enter_context(SERVERS[kind].running())
    return servers[kind]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whoever asks why a test failed sees what the server said last."""
    report = yield
    for server in _fallen(item.config):
        report.sections.append((f"{server.name} has ended by itself", server.last_words()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Between two tests, where nobody takes a new process for a leak. A test that passed fails of it, too."""
    try:
        return (yield)
    finally:
        for server in _fallen(item.config):
            words = server.last_words()
            server.renew()
            pytest.fail(f"{server.name} has ended by itself:\n{words}")


def _fallen(config: pytest.Config) -> list[Server]:
    return [server for server in config.stash.get(_RUNNING, {}).values() if server.fallen]
