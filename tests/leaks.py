"""What a test must leave as it found it: threads, child processes, open files, asyncio tasks.

Linux only, like the appliance: open files and children are read from /proc.
"""

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# A thread or a killed child may need a moment to end after the call that stops it has returned.
GRACE_S = 5.0


@dataclass(frozen=True)
class Snapshot:
    """What this process holds at one moment."""

    threads: frozenset[threading.Thread]
    files: Counter[str]
    children: frozenset[int]

    @classmethod
    def take(cls) -> "Snapshot":
        return cls(frozenset(threading.enumerate()), _open_files(), _children())

    def left_since(self, before: "Snapshot") -> list[str]:
        """Sentences about everything that is here now and was not here `before`."""
        return [
            *(f"thread {thread.name!r} still runs" for thread in self.threads - before.threads),
            *(f"{target} is still open" for target in self.files - before.files),
            *(f"{_describe_child(pid)} was not waited for" for pid in self.children - before.children),
        ]


@contextlib.contextmanager
def no_leaks() -> Iterator[None]:
    """Fail the test when threads, files, sockets or child processes outlive the block."""
    before = Snapshot.take()
    yield
    # Unclosed sockets and coroutines that nobody awaited speak up when they are collected: here, not in
    # whichever test runs when the collector happens to. What survives is looked at when the run ends.
    gc.collect()
    gc.freeze()
    deadline = time.monotonic() + GRACE_S
    left = Snapshot.take().left_since(before)
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = Snapshot.take().left_since(before)
    if left:
        pytest.fail("leaked: " + "; ".join(left), pytrace=False)


@contextlib.asynccontextmanager
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail the test when tasks outlive the block, or when the loop met an exception nobody retrieved."""
    loop = asyncio.get_running_loop()
    unhandled: list[str] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(_describe_context(context)))
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_S)
    gc.collect()
    await asyncio.sleep(0)
    problems = [f"task still runs: {task!r}" for task in left] + unhandled
    if problems:
        pytest.fail("leaked: " + "; ".join(problems), pytrace=False)


def _open_files() -> Counter[str]:
    targets: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        # The descriptor of this very listing is gone before it can be read.
        with contextlib.suppress(FileNotFoundError):
            targets[str(entry.readlink())] += 1
    targets.pop(f"/proc/{os.getpid()}/fd", None)
    return targets


def _children() -> frozenset[int]:
    pids: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # The thread may end between the two reads; some kernels are built without this file.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pids.update(map(int, (task / "children").read_text().split()))
    return frozenset(pids)


def _describe_child(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except FileNotFoundError:
        command = ""
    return f"child process {pid} ({command.strip() or 'ended'})"


def _describe_context(context: dict[str, object]) -> str:
    return f"{context.get('message')}: {context.get('exception') or context.get('task')!r}"
