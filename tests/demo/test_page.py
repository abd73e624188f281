"""The page's door: who may open it, who may act, what it answers to nonsense (invariant 8)."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from hub.demo.cast import CARDS
from hub.demo.home import Home
from hub.demo.page import MAX_LIVE_PAGES, build_page
from hub.demo.stage import Stage

TOKEN = "a-secret-word"
DOCUMENT = {"dashboard_url": "https://127.0.0.1:8443/", "password": "<script>"}


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    """A stage on which nothing was started: the page answers all the same."""
    return Stage(Home(tmp_path), CARDS, 3)


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator["TestClient[aiohttp.web.Request, aiohttp.web.Application]"]:
    async with TestClient(TestServer(build_page(stage, TOKEN, DOCUMENT))) as client:
        yield client
        stage.board.close()


Client = TestClient[aiohttp.web.Request, aiohttp.web.Application]


def own(client: Client) -> dict[str, str]:
    """What a browser sends along with the page's own requests."""
    return {"Origin": f"http://{client.host}:{client.port}"}


async def test_the_page_opens_with_the_token_and_escapes_what_it_shows(client: Client) -> None:
    answer = await client.get(f"/{TOKEN}/")
    text = await answer.text()
    assert answer.status == 200
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path", ["/", "/wrong/", f"/{TOKEN}/static/../page.py", f"/{TOKEN}/static/nothing.js"]
)
async def test_nothing_is_there_without_the_token_or_beside_the_page(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert answer.status == 404
    assert "Content-Security-Policy" in answer.headers


async def test_another_name_for_this_machine_is_refused(client: Client) -> None:
    """A page elsewhere whose name is made to point here (DNS rebinding)."""
    assert (await client.get(f"/{TOKEN}/", headers={"Host": "evil.example"})).status == 403


@pytest.mark.parametrize("origin", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
async def test_another_site_may_not_act(client: Client, origin: dict[str, str]) -> None:
    answer = await client.post(f"/{TOKEN}/act", json={"action": "new-card"}, headers=origin)
    assert answer.status == 403


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_an_action_that_is_no_object_is_refused(client: Client, body: bytes) -> None:
    headers = own(client) | {"Content-Type": "application/json"}
    assert (await client.post(f"/{TOKEN}/act", data=body, headers=headers)).status == 400


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ({"action": "dance"}, "There is no action"),
        ({"action": "present", "bus": "bus-9", "card": CARDS[0].uid}, "There is no such bus."),
        ({"action": "present", "bus": "bus-1", "card": "quit"}, "There is no such card."),
        ({"action": "present", "bus": "bus-1", "card": CARDS[0].uid}, "Bus 1 is off. Start it again first."),
    ],
)
async def test_an_action_that_cannot_be_done_is_a_sentence(
    client: Client, action: dict[str, str], sentence: str
) -> None:
    answer = await client.post(f"/{TOKEN}/act", json=action, headers=own(client))
    assert answer.status == 409
    assert sentence in (await answer.json())["message"]


async def test_cutting_and_restoring_reaches_the_bus_and_the_story(client: Client, stage: Stage) -> None:
    for name, is_cut in (("cut", True), ("restore", False)):
        answer = await client.post(
            f"/{TOKEN}/act", json={"action": name, "bus": "bus-2"}, headers=own(client)
        )
        assert answer.status == 200
        assert stage.buses["bus-2"].router.is_cut is is_cut
        assert "Bus 2" in stage.state().log[0].text


async def test_new_cards_come_to_an_end(client: Client, stage: Stage) -> None:
    statuses = []
    for _ in range(12):
        answer = await client.post(f"/{TOKEN}/act", json={"action": "new-card"}, headers=own(client))
        statuses.append(answer.status)
    assert statuses.count(200) == 8
    assert statuses[-1] == 409
    assert len(stage.cards) == len(CARDS) + 8


async def test_live_pages_get_the_newest_snapshot_and_are_capped(client: Client, stage: Stage) -> None:
    stage.board.publish({"hello": 1})
    pages = [await client.get(f"/{TOKEN}/events") for _ in range(MAX_LIVE_PAGES)]
    first = await pages[0].content.readuntil(b"\n\n")
    assert first == b'event: snapshot\ndata: {"hello": 1}\n\n'
    assert (await client.get(f"/{TOKEN}/events")).status == 503
    for page in pages:
        page.close()
