"""What is set of a terminal, by the page's form and by the command line (issue 3, "Settings documents")."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from crdt.terminal_document import MAX_NOTES_BYTES
from hub import cli
from tests.hub.conftest import Depot
from tests.hub.pages.world import operator, text_of

NAME = "Bus 12 front"


async def values(depot: Depot) -> dict[str, str]:
    view: dict[str, Any] = await depot.ask("GET", f"/terminals/settings?terminal={quote(NAME)}")
    return dict(view["values"])


async def test_only_what_was_changed_in_the_form_is_set(depot: Depot) -> None:
    """Somebody else's edit since the page was opened stays, and so does what the page did not change."""
    bus = await depot.pair(NAME)
    page = f"/terminals/{bus.certificate.terminal.hex()}"
    async with operator(depot) as person:
        opened = {"shown-route": "", "shown-door": "", "shown-notes": ""}
        body = {"terminal": NAME, "changes": {"door": "rear", "notes": "a\nb"}}
        await depot.ask("POST", "/terminals/settings", body)
        answer = await person.post(f"{page}/settings", {"route": " 12 ", **opened}, form=page)
        assert (answer.status, answer.location) == (303, f"{page}?done=set")
        assert await values(depot) == {
            "route": "12",
            "door": "rear",
            "vehicle": "",
            "reader": "",
            "notes": "a\nb",
        }
        again = {"notes": "a\r\nb", "door": "rear", "route": "12"}
        fields = {f"shown-{name}": text for name, text in again.items()}
        await person.post(f"{page}/settings", again | fields | {"door": ""}, form=page)
        assert await values(depot) == {
            "route": "12",
            "door": "",
            "vehicle": "",
            "reader": "",
            "notes": "a\nb",
        }
        assert "12 instead of nothing" in text_of((await person.get(page)).text)


async def test_a_form_with_a_mistake_is_shown_again_and_sets_nothing(depot: Depot) -> None:
    bus = await depot.pair(NAME)
    page = f"/terminals/{bus.certificate.terminal.hex()}"
    async with operator(depot) as person:
        typed = {"route": "12", "door": "ü" * 33, "notes": "n" * (MAX_NOTES_BYTES + 1)}
        answer = await person.post(f"{page}/settings", typed, form=page)
        assert answer.status == 422
        text = text_of(answer.text)
        assert "Nothing was changed" in text
        assert "A terminal's door must be at most 64 bytes on one line." in text
        assert "A terminal's notes must be at most 1000 bytes" in text
        assert 'value="12"' in answer.text, "what was typed is still there"
        assert set((await values(depot)).values()) == {""}


async def test_a_form_that_is_not_ours_or_of_no_terminal_sets_nothing(depot: Depot) -> None:
    bus = await depot.pair(NAME)
    page = f"/terminals/{bus.certificate.terminal.hex()}"
    async with operator(depot) as person:
        assert (await person.post(f"{page}/settings", {"route": "12", "csrf": "guessed"})).status == 403
        nobody = f"/terminals/{'00' * 16}/settings"
        token = {"csrf": (await person.get(page)).text.partition('name="csrf" value="')[2].partition('"')[0]}
        assert (await person.post(nobody, {"route": "12", **token})).status == 404
        assert set((await values(depot)).values()) == {""}


async def test_the_command_line_shows_and_sets(depot: Depot, capsys: pytest.CaptureFixture[str]) -> None:
    """`farebox-hub terminals show NAME` and `set NAME route=12 ...`."""
    await depot.pair(NAME)
    file = depot.hub.settings.state_directory.parent / "hub.toml"

    async def hub(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(cli.main, ["terminals", *words, "--settings", str(file)])
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = await hub("set", NAME, "route=12", "notes=a\nb")
    assert code == 0
    assert "route:   12  (not fetched yet: the terminal has none)\n" in said
    assert "notes:   a\n         b  (not fetched yet" in said
    assert f"{NAME} fetches what is new when it next syncs." in said
    code, said = await hub("show", NAME)
    assert (code, "door:    -\n" in said) == (0, True)
    for words, sentence in [
        (("set", NAME, "rout=12"), "there is no 'rout'"),
        (("set", NAME, "route"), "Write NAME=TEXT"),
        (("set", NAME), "Say what to set"),
        (("show",), "Say which terminal"),
        (("show", "Bus 9"), "There is no terminal 'Bus 9'"),
    ]:
        code, said = await hub(*words)
        assert (code, sentence in said) == (1, True), said
    assert (await values(depot))["route"] == "12"
