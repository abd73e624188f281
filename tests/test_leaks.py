"""The checks around every test do catch what they are there for: each planted fault fails its test."""

import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent

# name of the fault: (a test that has it, what the failure must say)
PLANTED = {
    "thread": (
        """
        import threading
        def test_it():
            threading.Thread(target=threading.Event().wait, args=(20,), name="forgotten", daemon=True).start()
        """,
        "thread 'forgotten' still runs",
    ),
    "child process": (
        """
        import subprocess
        KEPT = []
        def test_it():
            KEPT.append(subprocess.Popen(["sleep", "20"]))
        """,
        "(sleep 20) was not waited for",
    ),
    "socket that is still referenced": (
        """
        import socket
        KEPT = []
        def test_it():
            KEPT.append(socket.socket())
        """,
        "is still open",
    ),
    "socket that nobody closed": (
        """
        import socket
        def test_it():
            loop = [socket.socket()]
            loop.append(loop)
        """,
        "ResourceWarning: unclosed <socket",
    ),
    "task": (
        """
        import asyncio
        KEPT = []
        async def test_it():
            KEPT.append(asyncio.create_task(asyncio.sleep(20)))
        """,
        "task still runs",
    ),
    "exception in a task": (
        """
        import asyncio
        async def fail():
            raise ValueError("nobody looked")
        async def test_it():
            asyncio.create_task(fail())
            await asyncio.sleep(0)
        """,
        "nobody looked",
    ),
    "coroutine that nobody awaited": (
        """
        import asyncio
        def test_it():
            asyncio.sleep(0)
        """,
        "was never awaited",
    ),
    "exception in a thread": (
        """
        import threading
        def fail():
            raise ValueError("nobody looked")
        def test_it():
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
        """,
        "nobody looked",
    ),
    "our code waits for a lock in the event loop": (
        """
        import concurrent.futures, pytest, edge
        namespace = {}
        exec(compile("def wait(future): return future.result(0.1)", edge.__file__, "exec"), namespace)
        async def test_it():
            namespace["wait"](concurrent.futures.Future())
        """,
        "BlockingError: Blocking call to lock.acquire",
    ),
    "our code waits for the database in the event loop": (
        """
        import edge, sqlcipher3.dbapi2
        namespace = {}
        exec(compile("def run(database): database.execute('select 1')", edge.__file__, "exec"), namespace)
        async def test_it():
            database = sqlcipher3.dbapi2.connect(":memory:")
            try:
                namespace["run"](database)
            finally:
                database.close()
        """,
        "BlockingError: Blocking call to Connection.execute",
    ),
}

BLAMELESS = """
import asyncio, socket, subprocess, threading, pytest
from pathlib import Path

@pytest.fixture(scope="module")
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener

def test_thread_and_child():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    subprocess.run(["true"], check=True)

async def test_tasks_and_sockets(server):
    server.setblocking(False)
    client, (accepted, _) = await asyncio.gather(
        asyncio.open_connection(*server.getsockname()), asyncio.get_running_loop().sock_accept(server)
    )
    accepted.close()
    client[1].close()
    await client[1].wait_closed()
    await asyncio.to_thread(Path(__file__).read_text)
    Path(__file__).read_text()  # a test may wait for the disk; the code under test may not
"""


OUTLIVES_ITS_MODULE = """
import socket, pytest
KEPT = []

@pytest.fixture(scope="module")
def kept():
    KEPT.append(socket.socket())

def test_it(kept):
    pass
"""


def run_pytest(directory: Path, sources: dict[str, str]) -> dict[str, str]:
    """Run the test modules under this repository's conftest and settings: module name to what went wrong."""
    (directory / "conftest.py").write_text("from tests import leaks\nleaks.GRACE_S = 0.2\n")
    for name, source in sources.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(source))
    report = directory / "report.xml"
    settings = ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, f"--junitxml={report}", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert report.exists(), ran.stdout + ran.stderr
    problems = dict.fromkeys(sources, "")
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (pytest has just written it)
        problems[case.get("classname", "").rpartition(".")[2]] += "".join(case.itertext())
    return problems


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    sources = {module_name(fault): source for fault, (source, _) in PLANTED.items()}
    return run_pytest(tmp_path_factory.mktemp("planted"), sources)


def module_name(fault: str) -> str:
    return "test_" + fault.replace(" ", "_")


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_fails_its_test(fault: str, problems: dict[str, str]) -> None:
    """Issue: "No leaked threads, tasks, sockets or unawaited coroutines in tests; warnings are errors"."""
    assert PLANTED[fault][1] in problems[module_name(fault)]


def test_fixture_that_outlives_its_module_fails_the_run(tmp_path: Path) -> None:
    """A fixture's leftovers are found too, at the end."""
    assert "is still open" in run_pytest(tmp_path, {"test_fixture": OUTLIVES_ITS_MODULE})["test_fixture"]


def test_blameless_tests_pass(tmp_path: Path) -> None:
    """The checks let go of everything that was closed, joined or waited for."""
    assert run_pytest(tmp_path, {"test_blameless": BLAMELESS}) == {"test_blameless": ""}
