"""`farebox-hub demo`: reads the options, runs the demo, and speaks to the person who started it."""

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from crdt.errors import LedgerError
from hub.errors import HubError

from .cast import CARDS, PASSBACK_S
from .errors import DemoError
from .headless import play, report
from .home import LOOPBACK, Home
from .page import build_page
from .script import DECK
from .stage import Stage

INTERRUPTED: Final = 130
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a closed window


def main(arguments: Sequence[str]) -> int:
    """Runs the demo until it ends or Ctrl-C; the exit status. Errors are sentences on standard error."""
    options = _parser().parse_args(arguments)
    try:
        with _home(options.directory) as home:
            return asyncio.run(_run(home, options))
    except (DemoError, HubError, LedgerError) as error:
        sys.stderr.write(f"farebox-hub demo: {error}\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="farebox-hub demo", description="A hub and three buses on this machine, to play with."
    )
    add = parser.add_argument
    add("--headless", action="store_true", help="play a scripted round without a page, and check it")
    add("--seconds", type=_seconds, default=20.0, help="how long --headless taps cards (default 20)")
    add("--seed", type=int, default=1, help="which round --headless plays (default 1)")
    add("--port", type=_port, default=0, help="the page's port on 127.0.0.1 (default: a free one)")
    add("--directory", type=Path, help="an empty directory to use and keep (default: a temporary one)")
    return parser


async def _run(home: Home, options: argparse.Namespace) -> int:
    """The demo as a task of its own, which ends early when asked to or when one of its processes dies."""
    cards, passback_s = (DECK, 0) if options.headless else (CARDS, PASSBACK_S)
    stage = Stage(home, cards, passback_s)
    work = _headless(stage, options) if options.headless else _interactive(stage, options)
    main = asyncio.create_task(work)
    ends: list[asyncio.Future[Any]] = [main, stage.died]
    try:
        with _stop_signals(main):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not stage.died.done():
            return INTERRUPTED if main.cancelled() else main.result()
        main.cancel()
        with suppress(asyncio.CancelledError, DemoError):
            await main
        raise stage.died.result()
    finally:
        await stage.stop()


async def _headless(stage: Stage, options: argparse.Namespace) -> int:
    await stage.start(_say)
    result = await play(stage, options.seed, options.seconds, _say)
    await stage.stop()
    sys.stdout.write(f"\n{report(result)}\n")
    return 1 if result.problems else 0


async def _interactive(stage: Stage, options: argparse.Namespace) -> int:
    token = secrets.token_urlsafe(12)
    async with _page(stage, token, options.port) as url:
        await stage.start(_say)
        sys.stdout.write(_WELCOME.format(url=url, dashboard=stage.depot.url, password=stage.depot.password))
        sys.stdout.flush()
        await stage.watch()
    return 0


_WELCOME: Final = """
  Open   {url}

  Drag a card onto a bus. Cut the bus off, tap on, plug it back in.
  The operator's dashboard is {dashboard} (password {password}).
  Ctrl-C ends everything and removes it.

"""


@asynccontextmanager
async def _page(stage: Stage, token: str, port: int) -> AsyncIterator[str]:
    """Serves the page; gives its address. DemoError when the port is taken."""
    document = {"dashboard_url": stage.depot.url, "password": stage.depot.password}
    runner = web.AppRunner(build_page(stage, token, document), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, LOOPBACK, port)
        try:
            await site.start()
        except OSError as error:
            raise DemoError(
                f"The page cannot use port {port}: {error.strerror}. Choose another --port."
            ) from error
        host, taken = runner.addresses[0][:2]
        yield f"http://{host}:{taken}/{token}/"
    finally:
        stage.board.close()
        await runner.cleanup()


@contextmanager
def _stop_signals(task: "asyncio.Task[int]") -> Iterator[None]:
    """Ctrl-C and the like cancel the task; everything is stopped in order then."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        _say("stopping")
        task.cancel()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def _home(directory: Path | None) -> Iterator[Home]:
    """The directory given, which stays, or a temporary one, which does not."""
    if directory is not None:
        home = Home(directory.absolute())
        home.prepare()
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="farebox-demo-") as temporary:
        home = Home(Path(temporary))
        home.prepare()
        yield home


def _say(text: str) -> None:
    sys.stdout.write(f"farebox-hub demo: {text}\n")
    sys.stdout.flush()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("a number of seconds from 1 to 86400")
    return seconds


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError("a port from 1 to 65535, or 0 for a free one")
    return port
