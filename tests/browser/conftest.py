"""A real Chromium in front of a real hub in the test's process.

Chromium is started once a file, which spares each test two seconds of a core; so the loop lasts as long, and
a file here says `pytestmark = IN_ONE_LOOP`. A test has a hub and windows of its own, without the cookies and
the cache of others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from hub.app import Hub
from tests import leaks
from tests.hub.conftest import PASSWORD, Depot, fleet_founded, founded, running, write_settings
from tests.needs import needs_program

__all__ = ["fleet_founded", "founded", "write_settings"]

Window = Callable[..., AbstractAsyncContextManager[Page]]

IN_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
WAIT_MS = 30_000  # a slow machine is no failure; a page that never changes is


@pytest_asyncio.fixture(loop_scope="module")
async def _no_leaked_tasks() -> AsyncIterator[None]:
    """As everywhere; and the threads of the loop end with the test, though the loop does not."""
    with ThreadPoolExecutor() as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        async with leaks.no_leaked_tasks():
            yield


@pytest_asyncio.fixture(loop_scope="module")
async def depot(founded: Hub) -> AsyncIterator[Depot]:
    """The hub, up."""
    async with running(founded) as depot:
        yield depot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, headless."""
    chromium = needs_program("chromium", "look at the pages as people do")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            # Without the sandbox, because it cannot start as root in a container; it only sees our own hub.
            executable_path=chromium,
            args=["--no-sandbox"],
        )
        yield launched
        await launched.close()


@pytest.fixture
def window(browser: Browser) -> Window:
    """Opens a window of its own cookies; the test fails on any console error or security policy violation.

    Keyword arguments are those of ``browser.new_context``, and ``allow``: texts of expected console errors.
    """

    @asynccontextmanager
    async def opened(address: str, *, allow: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Page]:
        context = await browser.new_context(base_url=address, ignore_https_errors=True, **options)
        context.set_default_timeout(WAIT_MS)
        troubles: list[str] = []
        context.on(
            "console",
            lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None,
        )
        context.on("weberror", lambda error: troubles.append(str(error.error)))
        yield await context.new_page()
        await context.close()
        assert not [trouble for trouble in troubles if not any(text in trouble for text in allow)]

    return opened


async def log_in(page: Page) -> None:
    """To the overview, by the login page."""
    await page.goto("/")
    await page.get_by_label("Operator password").fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_role("heading", name="Overview").wait_for()
