"""Setting a terminal in a real browser (issue 3, "Settings documents"): typed, saved, and seen to arrive."""

from playwright.async_api import expect

from crdt.documents import TERMINAL_DOCUMENT, SignedDocument
from crdt.frames import DocumentFrame
from crdt.pull import Pull
from crdt.terminal_document import TERMINAL_EDITS, TerminalDocument
from tests.browser.conftest import IN_ONE_LOOP, WAIT_MS, Window, log_in
from tests.hub.conftest import Depot
from tests.hub.terminal import Terminal

pytestmark = IN_ONE_LOOP
expect.set_options(timeout=WAIT_MS)


async def say(bus: Terminal, document: TerminalDocument) -> None:
    """The terminal sends its document."""
    signed = SignedDocument.seal(bus.key, bus.fleet, TERMINAL_DOCUMENT, document.version, document.body)
    await bus.exchange(DocumentFrame(signed.encode()))


async def fetch(bus: Terminal, document: TerminalDocument) -> TerminalDocument:
    """What the terminal has after a sync run, of which its next one tells the hub."""
    for event in await bus.exchange(Pull(documents={TERMINAL_DOCUMENT: document.version})):
        if isinstance(event, DocumentFrame):
            signed = SignedDocument.decode(event.raw)
            if signed.name == TERMINAL_DOCUMENT:
                theirs = TerminalDocument.of(signed, bus.certificate.terminal)
                return document.merged(theirs, TERMINAL_EDITS)
    return document


async def test_what_is_set_shows_as_not_fetched_until_the_terminal_has_it(
    depot: Depot, window: Window
) -> None:
    bus = await depot.pair("Bus 12 front")
    held = TerminalDocument.new(bus.certificate.terminal)
    async with window(depot.url, allow=("422",)) as page:
        await log_in(page)
        await page.goto(f"/terminals/{bus.certificate.terminal.hex()}")
        await expect(page.get_by_text("Nothing is set")).to_be_visible()
        await page.get_by_label("Route").fill("12")
        await page.get_by_label("Notes").fill("spare reader\nin the cab")
        await page.get_by_role("button", name="Save").click()
        state = page.locator("[data-live=settings]")
        await expect(state).to_contain_text("has not fetched this yet")
        await expect(state).to_contain_text("Route12 instead of nothing")

        # The page stays open while the technician sets something else; it does not take that back.
        await say(bus, held.edited(TERMINAL_EDITS, {"door": "rear"}))
        await page.get_by_label("Route").fill("13")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_label("Door")).to_have_value("rear")
        await expect(page.get_by_label("Notes")).to_have_value("spare reader\nin the cab")
        await expect(page.locator("[data-pulse]")).to_have_text("Live")
        held = await fetch(bus, held)
        await expect(state).to_contain_text("has not fetched this yet")
        assert await fetch(bus, held) == held
        await expect(state).to_have_text("The terminal has fetched all of this.")

        await page.get_by_label("Reader").evaluate("field => field.removeAttribute('maxlength')")
        await page.get_by_label("Reader").fill("x" * 65)
        async with page.expect_response(lambda response: response.status == 422):
            await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("reader must be at most 64 bytes")).to_be_visible()
        await expect(page.get_by_label("Reader")).to_have_value("x" * 65)
