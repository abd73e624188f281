"""The demo page in a real browser: a newcomer taps, cuts a bus off, taps on, restores, and sees all agree."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import IN_ONE_LOOP, Window

pytestmark = [IN_ONE_LOOP, pytest.mark.timeout(300)]

PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)
ADA = "04A1B2C3D4E501"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running demo, one for all tests here; the address it prints."""
    demo = (sys.executable, "-m", "hub", "demo", "--directory", str(tmp_path_factory.mktemp("demo") / "d"))
    with subprocess.Popen(demo, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = ""
        while (found := re.search(r"http://127\.0\.0\.1:\d+/\S+/", printed)) is None:
            line = process.stdout.readline()
            assert line, f"the demo ended: {printed}"
            printed += line
        yield found[0]
        process.terminate()
        process.communicate()


@pytest_asyncio.fixture(loop_scope="module")
async def page(window: Window, address: str) -> AsyncIterator[Page]:
    """The page, open, with every bus connected; anything the browser complains about fails the test."""
    async with window(address, viewport={"width": 1280, "height": 900}) as page:
        await page.goto(address)
        await expect(page.locator(".bus")).to_have_count(3)
        for restore in await page.get_by_role("button", name="Restore network").all():
            await restore.click()
        await shows(page.locator("#agree"), "All four ledgers agree.")
        yield page


def bus(page: Page, number: int) -> Locator:
    return page.locator(".bus").nth(number - 1)


def balance(page: Page, name: str, ledger: int) -> Locator:
    """What a ledger (0 the hub, 1 to 3 the buses) says of a card."""
    return page.locator("#ledger-cards tr").filter(has_text=name).locator("td").nth(ledger).locator(".amount")


async def shows(locator: Locator, text: str | re.Pattern[str]) -> None:
    await expect(locator).to_have_text(text)


async def after(page: Page, name: str, rides_minor: int) -> str:
    """What the card's balance, as the hub says it now, will be after rides of so much."""
    balance_minor = int((await balance(page, name, 0).inner_text()).replace(".", "")) - rides_minor
    return f"{balance_minor // 100}.{balance_minor % 100:02}"


async def choose(page: Page, name: str) -> None:
    await page.locator(".card", has_text=name).click()
    await expect(page.locator(".card[aria-checked=true]")).to_contain_text(name)


async def press(page: Page, number: int, name: str) -> None:
    await bus(page, number).get_by_role("button", name=name).click()


async def test_a_newcomer_taps_cuts_taps_on_and_sees_every_ledger_agree(page: Page) -> None:
    """Issue: "opens the demo page, taps, and sees the number change"."""
    await choose(page, "Ada")
    left = await after(page, "Ada", 250)
    await bus(page, 1).locator(".reader").click()
    await shows(bus(page, 1).locator(".display-main"), "2.50 EUR paid")
    for ledger in range(4):
        await shows(balance(page, "Ada", ledger), left)

    await press(page, 2, "Cut network")
    await choose(page, "Ben")
    before, left = await after(page, "Ben", 0), await after(page, "Ben", 180)
    await bus(page, 2).locator(".reader").click()
    await shows(balance(page, "Ben", 2), left)
    await shows(balance(page, "Ben", 0), before)
    await shows(bus(page, 2).locator(".bus-state"), re.compile("1 entry held, still taking fares"))
    await shows(page.locator("#books"), "Books balance: yes")
    await expect(page.locator("#agree")).to_contain_text("Bus 2 is cut off and holds 1 entry")

    await press(page, 2, "Restore network")
    await shows(balance(page, "Ben", 0), left)
    await shows(page.locator("#agree"), "All four ledgers agree.")
    await expect(page.locator("#steps li[data-done=yes]")).to_have_count(4)


async def test_cards_are_dragged_with_the_mouse_and_tapped_with_the_keyboard(page: Page) -> None:
    left = await after(page, "Ada", 420)
    await page.locator(".card", has_text="Ada").hover()
    await page.mouse.down()
    await bus(page, 3).locator(".reader").hover()
    await expect(bus(page, 3)).to_have_class(re.compile("over"))
    await page.mouse.up()
    await shows(balance(page, "Ada", 3), left)
    await expect(page.locator(".ghost")).to_have_count(0)

    left = await after(page, "Chidi", 250)
    await page.locator(".card", has_text="Ben").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".card[aria-checked=true]")).to_contain_text("Chidi")
    await page.keyboard.press("1")
    await shows(balance(page, "Chidi", 1), left)


async def test_a_bus_that_is_killed_comes_back_with_what_it_held(page: Page) -> None:
    """kill -9 with a held tap: the page says that it is on the disk, and it is."""
    await choose(page, "Ben")
    left = await after(page, "Ben", 250)
    await press(page, 1, "Cut network")
    await bus(page, 1).locator(".reader").click()
    await shows(balance(page, "Ben", 1), left)
    await press(page, 1, "Kill it")
    await shows(bus(page, 1).locator(".bus-state"), re.compile("1 entry held on its disk"))
    await press(page, 1, "Start again")
    await expect(page.locator("#now")).to_contain_text(
        "up again, with the entry it held", timeout=PATIENCE_MS
    )
    await press(page, 1, "Restore network")
    await shows(balance(page, "Ben", 0), left)


async def test_a_card_that_nobody_met_gets_its_opening_balance_once(page: Page) -> None:
    """Invariant 11 on the page: two buses that are cut off meet a new card first."""
    for number in (1, 2):
        await press(page, number, "Cut network")
    await page.locator(".card.new").click()
    await expect(page.locator(".card[aria-checked=true]")).to_contain_text("Emil")
    for number, left in ((1, "2.50"), (2, "3.20")):
        await bus(page, number).locator(".reader").click()
        await shows(balance(page, "Emil", number), left)
    for number in (1, 2):
        await press(page, number, "Restore network")
    for ledger in range(4):
        await shows(balance(page, "Emil", ledger), "0.70")
    await shows(page.locator("#books"), "Books balance: yes")


async def test_the_login_shown_opens_the_operators_dashboard(page: Page, window: Window) -> None:
    """The link to the real dashboard, with the password made for this demo, and the same balance there."""
    dashboard = await page.get_by_role("link", name="dashboard").get_attribute("href")
    await page.locator(".login summary").click()
    password = await page.locator(".login-box code").inner_text()
    ada = await after(page, "Ada", 0)
    assert dashboard is not None
    async with window(dashboard) as desk:
        await desk.goto(dashboard)
        await desk.get_by_label("Operator password").fill(password)
        await desk.get_by_role("button", name="Log in").click()
        await expect(desk.get_by_role("heading", name="Overview")).to_be_visible()
        await expect(desk.locator("main")).to_contain_text("Bus 1, front door")
        await desk.goto(f"{dashboard}cards/{ADA}")
        await expect(desk.locator("main")).to_contain_text(ada)


@pytest.mark.parametrize("width", [320, 768])
async def test_nothing_sticks_out_on_a_small_screen(page: Page, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 700})
    assert await page.evaluate("document.documentElement.scrollWidth") == width
