"""A person with a browser's habits, and taps that say where they were made."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape

import aiohttp

from crdt.block import seal
from crdt.facts import CardId, Context, Delta, Kind
from tests.hub.conftest import PASSWORD, Depot
from tests.hub.terminal import Terminal

HTML = {"Accept": "text/html,application/xhtml+xml"}


@dataclass(frozen=True)
class Answer:
    """What came back, redirects not followed."""

    status: int
    text: str
    location: str
    headers: dict[str, str]


class Visitor:
    """Reads pages and sends forms the way a browser does."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(self, path: str) -> Answer:
        """The page at ``path``."""
        async with self.session.get(path, headers=HTML, allow_redirects=False) as response:
            return await _answer(response)

    async def post(self, path: str, values: dict[str, str], form: str = "") -> Answer:
        """Send a form, with the hidden fields of the form that posts to ``path`` on the page ``form``."""
        hidden = hidden_fields((await self.get(form)).text, path) if form else {}
        data = hidden | values
        async with self.session.post(path, data=data, headers=HTML, allow_redirects=False) as response:
            return await _answer(response)


@asynccontextmanager
async def visitor(depot: Depot) -> AsyncIterator[Visitor]:
    """Somebody with an empty cookie jar."""
    connector = aiohttp.TCPConnector(ssl=await depot.browser_tls())
    jar = aiohttp.CookieJar(unsafe=True)  # "unsafe": the jar keeps the cookies of bare addresses too
    async with aiohttp.ClientSession(depot.url, connector=connector, cookie_jar=jar) as session:
        yield Visitor(session)


@asynccontextmanager
async def operator(depot: Depot) -> AsyncIterator[Visitor]:
    """Somebody who has logged in."""
    async with visitor(depot) as somebody:
        assert (await somebody.post("/login", {"password": PASSWORD}, form="/login")).status == 303
        yield somebody


def hidden_fields(html: str, action: str) -> dict[str, str]:
    """The hidden fields of the form on a page that posts to ``action``."""
    form = html.partition(f'action="{action}"')[2].partition("</form>")[0]
    fields = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form)
    return {unescape(name): unescape(value) for name, value in fields}


def tap(bus: Terminal, card: str, kind: Kind, amount_minor: int, at_ms: int, where: Context) -> bytes:
    """The bus's next block: one fact, written on this route at this stop."""
    card_id = CardId(bytes.fromhex(card))
    delta = Delta(bus.key.replica, bus.head.seq + 1, card_id, kind, amount_minor, at_ms, where)
    block = seal(bus.key, bus.fleet, [delta], bus.head.hash)
    bus.head = block.head
    bus.chain.append(block.raw)
    return block.raw


async def projected(depot: Depot) -> None:
    """Wait until the history shows everything that was merged: it follows in the background."""
    while await asyncio.wrap_future(depot.hub.ledger.lag()):
        pass


def text_of(html: str) -> str:
    """What a person reads of a page: no tags, single spaces."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html))).strip()


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    headers = dict(response.headers)
    return Answer(response.status, await response.text(), headers.get("Location", ""), headers)
