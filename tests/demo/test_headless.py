"""`farebox-hub demo --headless` as a person runs it, and what it says when something is wrong."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from hub.demo.headless import HEADINGS, Result, report
from tests import forked

pytestmark = pytest.mark.timeout(300)

DEMO = (sys.executable, "-m", "hub", "demo")


async def demo(*arguments: str) -> tuple[int | None, str, str]:
    """Runs the demo; exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *DEMO, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def refused(*arguments: str) -> tuple[int, str]:
    """Runs a demo that does not begin; exit status and standard error."""
    done = forked.run("hub", "demo", *arguments, timeout_s=60, stderr=subprocess.PIPE)
    return done.returncode, done.stderr


async def test_the_scripted_round_ends_with_books_that_balance(tmp_path: Path) -> None:
    """Issue: exits 0 only if every ledger agrees and nothing acknowledged was lost."""
    status, out, err = await demo("--headless", "--seconds", "4", "--directory", str(tmp_path / "d"))
    assert status == 0, f"{out}\n{err}"
    assert out.endswith("books balance: yes\n")
    digests = re.findall(r"^(?:hub|Bus \d)\b.* ([0-9a-f]{16})$", out, re.MULTILINE)
    assert len(digests) == 4
    assert len(set(digests)) == 1
    assert processes_with(f"{tmp_path}/") == []


async def test_ctrl_c_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*DEMO, "--directory", str(tmp_path / "d")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readuntil(b"terminals")
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130
    assert processes_with(f"{tmp_path}/") == []


async def test_a_process_that_dies_unasked_ends_the_demo_and_is_named_with_its_last_lines(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*DEMO, "--directory", str(tmp_path / "d")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readuntil(b"Ctrl-C")
    (terminal,) = processes_with(f"{tmp_path}/d/bus-2/settings.toml")
    os.kill(terminal, signal.SIGKILL)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().startswith(
        "farebox-hub demo: Bus 2's terminal has ended unexpectedly. Its last lines:\n"
    )
    assert "online: hub at" in err.decode()
    assert processes_with(f"{tmp_path}/") == []


def test_a_directory_that_is_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    status, err = refused("--headless", "--directory", str(tmp_path))
    assert status == 1
    assert err == f"farebox-hub demo: The directory {tmp_path} is not empty. Give the demo one of its own.\n"


def test_a_page_port_that_is_taken_is_refused_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        status, err = refused("--port", str(port))
    assert status == 1
    assert f"The page cannot use port {port}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--seconds", "soon"], ["--port", "70000"]])
def test_options_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    status, err = refused(*arguments)
    assert status == 2
    assert "error: argument" in err


def test_a_round_with_a_difference_says_no_and_what_differs() -> None:
    row = ["hub", "–", "–", "–", "0", "7", "12.50", "ab"]
    said = report(Result([row], ["Bus 1 accepted 2 taps of card 04AA at 250, and the hub has 1: 1 lost."]))
    assert said.splitlines()[-2:] == [
        "Bus 1 accepted 2 taps of card 04AA at 250, and the hub has 1: 1 lost.",
        "books balance: no",
    ]
    assert all(heading in said for heading in HEADINGS)


def processes_with(text: str) -> list[int]:
    """The ids of the processes that have the text on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
