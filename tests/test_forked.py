"""A program that is forked and not started is like one that was started, but for its imports."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forked

PROGRAM = """
import json, os, pathlib, signal, sys
given = [os.environ.get(name) for name in ("GIVEN", "PATH")]
print(json.dumps([sys.argv[1:], os.getcwd(), given, __name__, os.getppid()]))
match sys.argv[1]:
    case "echo": print(input(), file=sys.stderr)
    case "exit": sys.exit(7)
    case "fail": raise RuntimeError("as it should")
    case "pause": signal.pause()
"""
STREAMS = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


@pytest.fixture(params=["forked", "started"])
def program(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A directory with a module `program`; it is run in both ways."""
    (tmp_path / "program.py").write_text(PROGRAM)
    assert forked._origin, "nothing is ready"
    if request.param == "started":
        monkeypatch.setattr(forked, "_origin", [])
    yield tmp_path


def test_it_has_arguments_environment_directory_and_streams_of_its_own(program: Path) -> None:
    ran = forked.Process("program", "echo", "é", cwd=program, env={"GIVEN": "1"}, **STREAMS)
    with ran:
        said, errors = ran.communicate("a line\n")
    assert said == f'[["echo", "\\u00e9"], "{program}", ["1", null], "__main__", {os.getpid()}]\n'
    assert (errors, ran.returncode) == ("a line\n", 0)


@pytest.mark.parametrize(
    ("how", "status", "words"), [("exit", 7, ""), ("fail", 1, "RuntimeError: as it should\n")]
)
def test_its_end_is_told(program: Path, how: str, status: int, words: str) -> None:
    ran = forked.run(
        "program", how, cwd=program, timeout_s=60, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert ran.returncode == status
    assert ran.stderr.endswith(words)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_is_ended_by_a_signal(program: Path, how: signal.Signals) -> None:
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with forked.Process("program", "pause", cwd=program, env=unbuffered, stdout=subprocess.PIPE) as ran:
        assert ran.stdout is not None
        assert "pause" in ran.stdout.readline()
        ran.send_signal(how)
    assert ran.returncode == -how
