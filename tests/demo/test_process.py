"""The demo's processes: heard, killed, stopped, mourned, and never left behind."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hub.demo import process
from hub.demo.errors import ChildDied, NotAnswering
from hub.demo.process import Child

Start = Callable[..., Child]


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Start]:
    """Makes a child that runs a piece of Python, and ends it after the test."""
    made: list[Child] = []

    def make(code: str, **options: Callable[..., None]) -> Child:
        made.append(Child("The clerk", ["-c", code], tmp_path / "clerk.log", **options))
        return made[-1]

    yield make
    for one in made:
        await one.stop()


READY_THEN_ECHO = "import sys\nprint('ready')\nfor line in sys.stdin: print('heard', line.strip())"


async def test_lines_are_heard_as_they_are_printed(child: Start) -> None:
    heard: list[str] = []
    clerk = child(READY_THEN_ECHO, on_line=heard.append)
    await clerk.start()
    await clerk.wait_for(lambda line: line == "ready", 30)
    await clerk.say("a tap")
    await clerk.wait_for(lambda line: line == "heard a tap", 30)
    assert heard == ["ready", "heard a tap"]


async def test_everything_printed_before_a_kill_is_handed_on(child: Start) -> None:
    heard: list[str] = []
    clerk = child("import time\nfor n in range(500): print(n)\ntime.sleep(60)", on_line=heard.append)
    await clerk.start()
    await clerk.wait_for(lambda line: line == "499", 30)
    await clerk.kill()
    assert heard == [str(n) for n in range(500)]
    assert not clerk.running


async def test_an_unexpected_death_is_reported_once_with_the_last_lines(child: Start) -> None:
    dead: list[Child] = []
    clerk = child("import sys\nsys.exit('the drawer is stuck')", on_death=dead.append)
    await clerk.start()
    with pytest.raises(ChildDied, match="the drawer is stuck"):
        await clerk.wait_for(lambda line: line == "ready", 30)
    await clerk.stop()
    assert dead == [clerk]


async def test_a_kill_is_no_unexpected_death(child: Start) -> None:
    dead: list[Child] = []
    clerk = child(READY_THEN_ECHO, on_death=dead.append)
    await clerk.start()
    await clerk.wait_for(lambda line: line == "ready", 30)
    await clerk.kill()
    assert dead == []


async def test_one_that_ignores_sigterm_is_killed(child: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.2)
    clerk = child("import signal,time\nsignal.signal(15, signal.SIG_IGN)\nprint('ready')\ntime.sleep(60)")
    await clerk.start()
    await clerk.wait_for(lambda line: line == "ready", 30)
    await clerk.stop()
    assert not clerk.running


async def test_one_that_says_nothing_is_not_waited_for_for_ever(child: Start) -> None:
    clerk = child("import time\ntime.sleep(60)")
    await clerk.start()
    with pytest.raises(ChildDied, match="not ready within"):
        await clerk.wait_for(lambda line: line == "ready", 0.1)


async def test_talking_to_a_dead_one_is_an_error_of_its_own(child: Start) -> None:
    clerk = child(READY_THEN_ECHO)
    with pytest.raises(NotAnswering):
        await clerk.say("hello?")


async def test_a_line_without_end_takes_bounded_memory(child: Start) -> None:
    heard: list[str] = []
    clerk = child("import sys\nsys.stdout.write('x' * 1_000_000)", on_line=heard.append)
    await clerk.start()
    await clerk.stop()
    assert sum(map(len, heard)) <= process.MAX_LINE_BYTES


async def test_children_end_with_a_demo_that_was_killed(tmp_path: Path) -> None:
    """kill -9 of the demo itself leaves no hub and no terminals behind."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path / "log")), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    grandchild = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    while _exists(grandchild):  # noqa: ASYNC110  (nobody is told when somebody else's child ends)
        await asyncio.sleep(0.02)


PARENT = """
import asyncio, pathlib, sys
from hub.demo.process import Child

async def main():
    work = "import time; print('up', flush=True); time.sleep(60)"
    child = Child("x", ["-c", work], pathlib.Path(sys.argv[1]))
    await child.start()
    await child.wait_for(lambda line: line == "up", 30)
    print(child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def _exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
