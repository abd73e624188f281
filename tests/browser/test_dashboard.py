"""The dashboard in a real browser: figures change by themselves, on a desk and on a phone."""

import re
from dataclasses import replace

import pytest
from playwright.async_api import Browser, Page, expect

from crdt.block import parse
from crdt.facts import CardId, Kind
from crdt.frames import BlockFrame, CertificateFrame
from crdt.terminal_status import Status
from hub.app import Hub
from tests.browser.conftest import IN_ONE_LOOP, WAIT_MS, Window, log_in
from tests.hub.conftest import PASSWORD, Depot, running
from tests.hub.pages.world import projected
from tests.hub.terminal import CARD, Terminal

pytestmark = IN_ONE_LOOP
UID = CARD.hex().upper()

expect.set_options(timeout=WAIT_MS)


async def mark(page: Page) -> None:
    """Leave something that a reload would wipe out."""
    await page.evaluate("window.untouched = true")


async def untouched(page: Page) -> bool:
    return bool(await page.evaluate("window.untouched === true"))


async def live(page: Page) -> None:
    await expect(page.locator("[data-pulse]")).to_have_text("Live")


async def test_a_tap_arrives_and_a_top_up_changes_the_number(depot: Depot, window: Window) -> None:
    """Issue: a browser test that "opens the dashboard ..., taps, and sees the number change"."""
    bus = await depot.pair("Bus 12, front door")
    async with window(depot.url) as page:
        await log_in(page)
        await live(page)
        await expect(page.get_by_text("No taps yet.")).to_be_visible()
        await mark(page)

        await bus.push(bus.taps(500, kind=Kind.OPENING), bus.taps(-250))
        taps = page.get_by_role("region", name="Latest taps").get_by_role("row")
        await expect(taps.filter(has_text="−2.50")).to_contain_text("Fare, Bus 12, front door")
        await expect(page.locator("[data-live=totals]")).to_contain_text("2.50 EUR")
        await expect(page.locator("[data-announce]")).to_contain_text(f"card {UID}")
        assert await untouched(page)

        await taps.filter(has_text="−2.50").get_by_role("link").click()
        balance = page.get_by_label("Balance")
        await expect(balance).to_contain_text("2.50 EUR")
        await live(page)
        await mark(page)
        await bus.push(bus.taps(-100))
        await expect(balance).to_contain_text("1.50 EUR")
        assert await untouched(page)

        await page.get_by_label("Amount").fill("20,00")
        await page.get_by_role("button", name="Top up").click()
        await expect(page.get_by_text("Topped up")).to_be_visible()
        await expect(balance).to_contain_text("21.50 EUR")
        await expect(page.get_by_role("row").filter(has_text="Top-up")).to_contain_text("+20.00")


async def test_a_terminal_comes_falls_behind_and_catches_up(depot: Depot, window: Window) -> None:
    """The state an operator looks for, in plain words, without a reload."""
    async with window(depot.url) as page:
        await log_in(page)
        await page.get_by_role("link", name="Pair the first terminal").click()
        await page.get_by_role("button", name="Make a pairing code").click()
        code = await page.locator(".pair-code").inner_text()
        await expect(page.locator(".command").first).to_have_text(f"farebox-tech pair {code}")
        bus = await Terminal.pair(depot.url, code, "Bus 7")
        await page.get_by_role("link", name="the list of terminals").click()
        await live(page)
        await mark(page)
        row = page.get_by_role("row", name="Bus 7")
        await expect(row).to_contain_text("paired, not seen yet")
        await bus.exchange(Status({"held": 12, "held_minor": -3000, "head_seq": 12, "position": 0}))
        await expect(row).to_contain_text("12 taps held")
        await bus.exchange(Status({"held": 0, "held_minor": 0, "head_seq": 12, "position": 3}))
        await expect(row).to_contain_text("all taps in")
        assert await untouched(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_nothing_sticks_out(depot: Depot, window: Window, scheme: str) -> None:
    """Issue: "usable on a phone": 320 pixels wide, long names and large sums, no sideways scrolling."""
    bus = await depot.pair("Bus 4711, rear door of the second wagon, Northwest")
    long_card = CardId(bytes.fromhex("00112233445566778899AABBCCDDEEFF"))
    await bus.push(bus.taps(2000, 1000, kind=Kind.OPENING, card=long_card), bus.taps(-250, card=long_card))
    said = Status({"held": 37_500, "held_minor": -9_375_000, "position": 1, "route": "X" * 64})
    await bus.exchange(said, frontier={bus.key.replica: bus.head})
    terminal = bus.certificate.terminal.hex()
    phone = {"viewport": {"width": 320, "height": 640}, "color_scheme": scheme, "has_touch": True}
    async with window(depot.url, **phone) as page:
        await page.goto("/login")
        await _fits(page)
        await log_in(page)
        await page.goto("/invite")
        await page.get_by_role("button", name="Make a pairing code").click()
        paths = ["/", "/cards", f"/cards/{long_card.hex()}", "/terminals", f"/terminals/{terminal}"]
        for path in [*paths, f"/terminals/{terminal}/revoke", "/fleet", "/invite", "/ledger", "/days/today"]:
            await page.goto(path)
            await _fits(page)


async def test_a_name_without_a_space_does_not_stick_out_either(depot: Depot, window: Window) -> None:
    """As long as a name may be; also where a decision about it is made."""
    bus, other = await depot.pair("W" * 64), await depot.pair("M" * 64)
    await bus.push(bus.taps(1000, kind=Kind.OPENING), bus.taps(-250))
    bus.head = parse(bus.chain[0]).head
    await bus.push(forked := bus.taps(-180))
    late = other.taps(-250)
    await bus.exchange(Status({"held": 0}), frontier={other.key.replica: other.head})
    block = f"/ledger/blocks/{parse(forked).hash.hex()}"
    waiting = f"/ledger/waiting/{other.key.replica.hex()}"
    terminals = [f"/terminals/{one.certificate.terminal.hex()}" for one in (bus, other)]
    async with window(depot.url, viewport={"width": 320, "height": 640}) as page:
        await log_in(page)
        paths = ["/", f"/cards/{UID}", "/terminals", "/ledger", block, waiting, "/days/today"]
        for path in [*paths, terminals[0], f"{terminals[0]}/revoke"]:
            await page.goto(path)
            await _fits(page)
        await page.goto(f"{terminals[1]}/revoke")
        await page.get_by_role("button", name="Revoke").click()
        await expect(page.get_by_role("heading", name="Revoked")).to_be_visible()
        await _fits(page)
        await bus.exchange(CertificateFrame(other.certificate.encode()), BlockFrame(late))
        await page.goto(f"/ledger/blocks/{parse(late).hash.hex()}")
        await expect(page.get_by_role("button", name="Accept")).to_be_visible()
        await _fits(page)


async def _fits(page: Page) -> None:
    wide = await page.evaluate(
        """() => [...document.querySelectorAll("body *")]
            .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5)
            .map((element) => element.outerHTML.slice(0, 120))"""
    )
    assert not wide, page.url
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320, page.url


async def test_every_field_says_what_it_is(depot: Depot, window: Window) -> None:
    """Screen readers: each visible field and button has a name, each page one main heading and a title."""
    async with window(depot.url) as page:
        await log_in(page)
        for path in ("/", "/cards", f"/cards/{UID}", "/terminals", "/fleet", "/invite"):
            await page.goto(path)
            nameless = await page.evaluate(
                """() => [...document.querySelectorAll("input:not([type=hidden]), button, a")]
                    .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
                    .map((e) => e.outerHTML)"""
            )
            assert not nameless, path
            assert await page.locator("h1").count() == 1, path
            assert (await page.title()).endswith("· Farebox"), path


async def test_the_keyboard_reaches_the_content_at_once(depot: Depot, window: Window) -> None:
    async with window(depot.url) as page:
        await log_in(page)
        await page.goto("/fleet")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Fare", exact=True)).to_be_focused()


async def test_everything_works_without_script(depot: Depot, window: Window) -> None:
    """Pages are whole without JavaScript; a reload is what makes them current."""
    async with window(depot.url, java_script_enabled=False) as page:
        await log_in(page)
        await page.goto(f"/cards/{UID}")
        await expect(page.get_by_text("Reload this page for newer figures.")).to_be_visible()
        await page.get_by_label("Amount").fill("5")
        await page.get_by_role("button", name="Top up").click()
        await expect(page.get_by_label("Balance")).to_contain_text("5.00 EUR")
        await projected(depot)
        await page.reload()
        await expect(page.get_by_role("row").filter(has_text="Top-up")).to_contain_text(re.compile(r"UTC"))


async def test_nothing_is_cut_off_on_a_phone_without_script(depot: Depot, window: Window) -> None:
    """Times are longer there: with the date and the zone."""
    bus = await depot.pair("Bus 12, front door")
    await bus.push(bus.taps(-250))
    await projected(depot)
    async with window(depot.url, java_script_enabled=False, viewport={"width": 360, "height": 740}) as page:
        await log_in(page)
        await expect(page.get_by_role("row").filter(has_text="−2.50")).to_contain_text(re.compile(r"UTC"))
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_times_are_in_the_viewers_zone(depot: Depot, window: Window) -> None:
    bus = await depot.pair()
    await bus.push(bus.taps(-100))  # at tests.hub.terminal.NOON_MS: 2025-06-15 15:06:40 UTC
    async with window(depot.url, timezone_id="Asia/Kolkata", locale="en-GB") as page:
        await log_in(page)
        await page.goto(f"/cards/{UID}")
        await expect(page.locator("td time")).to_have_text("15 Jun, 20:36")


async def test_a_session_that_ended_leads_back_to_the_login(depot: Depot, window: Window) -> None:
    bus = await depot.pair()
    async with window(depot.url) as page:
        await log_in(page)
        await live(page)
        await depot.ask("POST", "/password", {"password": PASSWORD + " 2"})
        await bus.push(bus.taps(-100))
        await expect(page.get_by_label("Operator password")).to_be_visible()


async def test_a_restart_of_the_hub_is_seen_and_survived(founded: Hub, window: Window) -> None:
    """The page says that its figures are old, and is current again by itself when the hub is back."""
    lost = ("ERR_", "Failed to load resource")
    async with running(founded) as depot:
        port = depot.served.port
        bus = await depot.pair("Bus 12")
        opened = window(depot.url, allow=lost)
        page = await opened.__aenter__()
        await log_in(page)
        await live(page)
        await mark(page)
    await expect(page.locator("[data-pulse]")).to_contain_text("Connection lost")
    again = replace(founded, settings=replace(founded.settings, port=port))
    async with running(again):
        await live(page)
        await bus.push(bus.taps(-175))
        await expect(page.get_by_role("region", name="Latest taps")).to_contain_text("−1.75")
        assert await untouched(page)
        await opened.__aexit__(None, None, None)


async def test_nothing_is_asked_of_anybody_else(depot: Depot, browser: Browser) -> None:
    """Issue: "no third-party script from the network": every request goes to the hub."""
    context = await browser.new_context(base_url=depot.url, ignore_https_errors=True)
    asked: set[str] = set()
    context.on("request", lambda request: asked.add(request.url.partition("//")[2].partition("/")[0]))
    page = await context.new_page()
    await log_in(page)
    for path in ("/cards", f"/cards/{UID}", "/fleet", "/invite"):
        await page.goto(path)
    await context.close()
    assert asked == {depot.url.removeprefix("https://")}


async def test_a_fork_appears_by_itself_and_is_decided_with_care(depot: Depot, window: Window) -> None:
    """Issue: forks "shown on the dashboard, resolved without losing or doubling anybody's money"."""
    bus = await depot.pair("Bus 9")
    await bus.push(bus.taps(1000, kind=Kind.OPENING), bus.taps(-250))
    async with window(depot.url, allow=("422",)) as page:
        await log_in(page)
        await page.get_by_role("link", name="Ledger").click()
        await live(page)
        quarantine = page.get_by_role("region", name="Quarantine")
        await expect(quarantine).to_contain_text("No block is in quarantine.")
        await mark(page)
        bus.head = parse(bus.chain[0]).head
        await bus.push(bus.taps(-180))
        await expect(quarantine.get_by_role("row", name="Bus 9")).to_contain_text("−1.80")
        await expect(page.get_by_text("1 block in quarantine waits for you")).to_be_visible()
        assert await untouched(page)

        await quarantine.get_by_role("link", name="It never will").click()
        await page.get_by_role("button", name="Book these entries").click()
        await expect(page.get_by_role("heading", name="entry 2")).to_be_visible()  # unticked
        await page.get_by_label("will never write these entries again").check()
        await page.get_by_role("button", name="Book these entries").click()
        await expect(quarantine.get_by_role("row", name="Bus 9")).to_contain_text("Booked by the hub")
        await page.goto(f"/cards/{UID}")
        await expect(page.get_by_label("Balance")).to_contain_text("5.70 EUR")


async def test_the_ledgers_page_fits_a_phone(depot: Depot, window: Window) -> None:
    bus, other = await depot.pair("Bus 12, front door"), await depot.pair("Bus 7, rear door")
    await bus.push(bus.taps(1000, kind=Kind.OPENING), bus.taps(-250))
    bus.head = parse(bus.chain[0]).head
    await bus.push(bus.taps(-180))
    other.taps(-250)
    await bus.exchange(Status({"held": 0}), frontier={other.key.replica: other.head})
    async with window(depot.url, viewport={"width": 360, "height": 740}) as page:
        await log_in(page)
        await page.goto("/ledger")
        await expect(page.get_by_role("row", name="Bus 7, rear door")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
