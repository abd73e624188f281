"""A database server that dies in the middle of a run: somebody says why, and the rest of the run goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crdt.store.servers import SERVERS

ROOT = Path(__file__).parents[3]
TESTS = """
import os, signal

def test_it_dies(server):
    process = server._process
    os.kill(process.pid, signal.SIGTERM)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert server.run("SELECT 1") == 1

def test_nobody_notices(server):
    process = server._process
    os.kill(process.pid, signal.SIGTERM)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

def test_the_next(server):
    assert server.run("SELECT 1") == 1
    server.fresh()
    server.with_tables()
"""


@pytest.mark.parametrize("kind", SERVERS)
def test_who_fails_shows_the_servers_log_and_the_next_test_finds_a_fresh_one(
    kind: str, tmp_path: Path
) -> None:
    """A crash of the server is no riddle of refused connections, and costs one test."""
    SERVERS[kind].needs()
    mark = f"import pytest\npytestmark = pytest.mark.parametrize('server', ['{kind}'], indirect=True)\n"
    (tmp_path / "test_planted.py").write_text(mark + TESTS)
    settings = ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *settings, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 2 passed, 2 errors" in ran.stdout, ran.stdout
    assert "ready" in ran.stdout.partition(f"{kind} has ended by itself")[2]
