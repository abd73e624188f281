"""Who may see pages and change things: nobody without the password, nobody from another site."""

import itertools
from urllib.parse import unquote

from tests.hub.conftest import PASSWORD, Depot
from tests.hub.pages.world import hidden_fields, operator, visitor

PATHS = ["/", "/cards", "/cards/DEADBEEF", "/terminals", "/terminals/00", "/invite", "/fleet"]
CHANGES = ["/cards/DEADBEEF/topup", "/cards/DEADBEEF/block", "/terminals/00/revoke", "/invite", "/fleet"]


async def test_pages_lead_a_stranger_to_the_login(depot: Depot) -> None:
    """Issue: the dashboard is "behind an operator password"."""
    async with visitor(depot) as stranger:
        for path in PATHS:
            answer = await stranger.get(path)
            assert answer.status == 303, path
            assert answer.location.startswith("/login?next="), path
            assert unquote(answer.location).endswith(f"={path}"), path


async def test_live_events_are_not_for_strangers(depot: Depot) -> None:
    async with visitor(depot) as stranger, stranger.session.get("/events?view=overview") as response:
        assert response.status == 401


async def test_a_stranger_with_a_form_of_ours_changes_nothing(depot: Depot) -> None:
    """A valid form token alone is no permission: it comes with the login page too."""
    async with visitor(depot) as stranger:
        token = hidden_fields((await stranger.get("/login")).text, "/login")["csrf"]
        for path in CHANGES:
            answer = await stranger.post(path, {"csrf": token, "amount": "10.00", "request": "a" * 32})
            assert answer.status == 401, path
            assert "<h1>You are logged out</h1>" in answer.text, path
    assert not await _cards(depot)


async def test_forms_of_other_sites_are_refused(depot: Depot) -> None:
    """Issue: "CSRF ... in place": without this visitor's own token nothing changes, and a page says why."""
    async with operator(depot) as person:
        for path, token in itertools.product([*CHANGES, "/logout"], ["", "0" * 64]):
            answer = await person.post(path, {"csrf": token, "amount": "10.00", "request": "a" * 32})
            assert answer.status == 403, path
            assert "<h1>Not allowed</h1>" in answer.text, path
        assert (await person.get("/")).status == 200
    assert not await _cards(depot)


async def _cards(depot: Depot) -> list[object]:
    async with operator(depot) as person:
        page = (await person.get("/cards")).text
    return [] if "No card is known yet" in page else [page]


async def test_wrong_password_says_so_and_keeps_the_way(depot: Depot) -> None:
    async with visitor(depot) as stranger:
        answer = await stranger.post("/login", {"password": "wrong wrong"}, form="/login?next=/cards")
        assert answer.status == 403
        assert "The password is wrong." in answer.text
        assert hidden_fields(answer.text, "/login")["next"] == "/cards"
        answer = await stranger.post("/login", {"password": PASSWORD, "next": "/cards"}, form="/login")
        assert (answer.status, answer.location) == (303, "/cards")
        assert (await stranger.get("/cards")).status == 200
        assert (await stranger.get("/login?next=/fleet")).location == "/fleet"


async def test_guessing_has_to_wait_and_is_told_how_long(depot: Depot) -> None:
    async with visitor(depot) as stranger:
        for _ in range(depot.hub.settings.login_attempts):
            assert (await stranger.post("/login", {"password": "wrong wrong"}, form="/login")).status == 403
        answer = await stranger.post("/login", {"password": PASSWORD}, form="/login")
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert "Try again in" in answer.text


async def test_login_leads_nowhere_else(depot: Depot) -> None:
    """Bad input: the address to go on to after the login is a path of this hub or the overview."""
    for wanted in ("//evil.example", "https://evil.example/", "/\\evil.example", "/a\nb", "x"):
        async with visitor(depot) as person:
            answer = await person.post("/login", {"password": PASSWORD, "next": wanted}, form="/login")
        assert (answer.status, answer.location) == (303, "/"), wanted


async def test_logging_out_ends_it(depot: Depot) -> None:
    async with operator(depot) as person:
        assert (await person.post("/logout", {}, form="/")).location == "/login"
        assert (await person.get("/")).status == 303


async def test_every_answer_forbids_what_pages_do_not_need(depot: Depot) -> None:
    """Issue: CSP in place: no inline script or style, nothing from elsewhere, in no frame, on every page."""
    async with operator(depot) as person:
        for path in [*PATHS, "/login", "/static/live.js", "/static/none.js", "/nothing/here"]:
            policy = (await person.get(path)).headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy


async def test_unknown_address_is_a_page_with_a_way_back(depot: Depot) -> None:
    async with operator(depot) as person:
        for path in ("/nothing/here", "/terminals/" + "00" * 16, "/cards/0F"):
            answer = await person.get(path)
            assert answer.status in (400, 404)
            assert "To the overview" in answer.text


async def test_static_files_are_kept_by_browsers_and_change_their_address(depot: Depot) -> None:
    async with operator(depot) as person:
        html = (await person.get("/")).text
        address = html.partition('rel="stylesheet" href="')[2].partition('"')[0]
        kept = await person.get(address)
        assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert kept.headers["Content-Type"] == "text/css; charset=utf-8"
        assert (await person.get(address.partition("?")[0])).headers["Cache-Control"] == "no-cache"
        assert (await person.get("/static/..%2Frender.py")).status == 404
