"""Invariant 8 on pages: text from terminals, cards and forms is shown as text, never run as markup."""

from dataclasses import replace
from typing import Any

import pytest

from crdt.facts import Kind
from hub.block_entries import EntryRow
from hub.day_page import AdjustmentRow, TerminalDay
from hub.evidence import (
    Allowance,
    FlagRow,
    OverdrawnRow,
    QuarantineRow,
    RestorationRow,
    WaitingRow,
)
from hub.excerpt import Excerpt
from hub.exposure import ExposureView
from hub.overview import CardPage, TapRow, Totals
from hub.pages.forms import Form
from hub.pages.gather import Held
from hub.pages.notices import NOTICES
from hub.pages.render import part
from hub.settings_desk import SettingsView
from hub.silent_row import SilentRow
from hub.terminal_row import TerminalRow

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "</title><svg/onload=alert(1)>",
]
QUARANTINED = QuarantineRow("ab" * 32, "Bus 1", "02" * 16, 1, 2, -5, False, False, False, True, "", 0)
SILENT = SilentRow("?", "02" * 16, 5, 0)
TOTALS = Totals(1, 2, 3, 2, 1, 4, "ab" * 32, 1, 0)


def terminal(text: str) -> TerminalRow:
    return TerminalRow(
        terminal="01" * 16,
        name=text,
        route=text,
        replica="02" * 16,
        online=False,
        revoked=False,
        last_seen_ms=0,
        held=3,
        held_minor=-750,
        head_seq=1,
        reported_seq=4,
        position=2,
        address=text,
        restored_ms=None,
        renewed_ms=None,
        earlier_ms=5,
    )


def tap(text: str) -> TapRow:
    return TapRow(
        replica="02" * 16,
        seq=1,
        terminal=text,
        card="DEADBEEF",
        kind=Kind.OPENING,
        amount_minor=100,
        at_ms=10**17,  # a clock that says the year three million must not break the page either
        clock_error_ms=90_000,
        route=text,
        trip=text,
        stop=text,
        voided=True,
    )


def troubles(text: str) -> dict[str, Any]:
    """What the pages about the whole ledger and about days show."""
    return {
        "on_ledger": False,
        "restoration": RestorationRow(0, seen=False),
        "waiting": [WaitingRow(text, "02" * 16, 1, 9, 0, text, proven=False, own=True)],
        "silent": [SilentRow(text, "02" * 16, 5, 0)],
        "quarantine": Excerpt([QUARANTINED], 2, 999),
        "entries": Excerpt([EntryRow(1, "DEADBEEF", Kind.FARE, -5, 10**17, 90_000, text)], 1, 2),
        "undecided": 1,
        "put_back": [terminal(text)],
        "flags": Excerpt([FlagRow(text, "02" * 16, "fork_detected", 0, text)], 1, 1),
        "overdrawn": Excerpt([OverdrawnRow("DEADBEEF", -5)], 1, 2),
        "exposure": ExposureView(1, 2, True, 5, 1, 4, 3, 4, 5),
        "allowance": Allowance(1, 2),
        "day": "2026-11-21",
        "before": "2026-11-20",
        "ended": True,
        "complete": False,
        "limits": text,
        "closed_ms": None,
        "adjustments": [AdjustmentRow(0, text, 1, -250)],
    }


def context(text: str) -> dict[str, Any]:
    return troubles(text) | {
        "csrf": text,
        "section": "/",
        "events": f"/events?view={text}",
        "notice": NOTICES["blocked"],
        "currency": text,
        "exponent": 2,
        "now_ms": 10**15,
        "terminals": [terminal(text)],
        "row": terminal(text),
        "unlisted": 2,
        "excerpt": Excerpt([terminal(text)], 1, 2),
        "held": Held(3, silent=True),
        "totals": TOTALS,
        "taps": [tap(text)],
        "card": CardPage(
            "DEADBEEF",
            known=True,
            balance_minor=-5,
            blocked=True,
            overdrawn=True,
            history=(tap(text),),
            behind=True,
        ),
        "older": True,
        "longer": True,
        "request_id": text,
        "large_minor": 5,
        "form": Form(
            {
                "uid": text,
                "amount": text,
                "flat_fare": text,
                "route": text,
                "shown-route": text,
                "notes": text,
            },
            {"uid": text, "amount": text, "route": text, "notes": text, "": text},
        ),
        "lines": [],
        "cards": [],
        "settings": SettingsView(
            terminal="01" * 16,
            name=text,
            values={"route": text, "door": "", "vehicle": "", "reader": "", "notes": text},
            waiting=("route", "notes"),
            fetched={"route": "", "notes": text},
            used={"door": text},
        ),
        "uid": text,
        "whole_card": "",
        "following": "",
        "page_rows": 100,
        "invites": [],
        "hub": text,
        "refusal": text,
        "next": text,
        "title": text,
        "text": text,
    }


PAGES = ["overview", "terminals", "terminal", "revoke", "card", "cards", "fleet", "invite", "login", "error"]
PAGES += ["ledger"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("block", {"row": replace(QUARANTINED, terminal="?")}),
        ("give_up", {"row": WaitingRow("?", "02" * 16, 1, 9, 0, "?", proven=False, own=True)}),
        ("silent", {"row": SILENT}),
        ("day", {"terminals": [TerminalDay("?", "open", 1, (), 0, 0, 1, -5, 1, -5, [SILENT])]}),
        ("day", {"terminals": [TerminalDay("?", "missing", 1, (), 2, 0, 1, -5, 2, -9)]}),
    ],
)
def test_hostile_names_stay_text_where_something_is_decided(
    page: str, shown: dict[str, Any], text: str
) -> None:
    def hostile(value: Any) -> Any:
        if isinstance(value, list):
            return [hostile(each) for each in value]
        names = {"terminal": text, "source": text, "name": text}
        return replace(value, **{key: name for key, name in names.items() if hasattr(value, key)})

    assert text not in part(
        f"{page}.html", context(text) | {key: hostile(each) for key, each in shown.items()}
    )


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("page", PAGES)
def test_hostile_text_stays_text(page: str, text: str) -> None:
    html = part(f"{page}.html", context(text))
    assert text not in html
    clean = part(f"{page}.html", context("harmless"))
    for markup in ("<script", "<img", "<svg", "onerror=", "autofocus"):
        assert _tags(html).count(markup) == _tags(clean).count(markup)


@pytest.mark.parametrize("page", PAGES)
def test_text_is_no_template_either(page: str) -> None:
    assert "{{ 7 * 7 }}{% raw %}" in part(f"{page}.html", context("{{ 7 * 7 }}{% raw %}"))


def _tags(html: str) -> str:
    """Everything that a browser reads as markup, attribute values excluded."""
    tags = []
    for piece in html.split("<")[1:]:
        inside = piece.partition(">")[0]
        tags.append("<" + " ".join(inside.split('"')[::2]))
    return "\n".join(tags)


@pytest.mark.parametrize("page", PAGES)
def test_pages_carry_nothing_inline_and_nothing_from_elsewhere(page: str) -> None:
    """Issue: "no third-party script from the network", CSP: no inline script or style at all."""
    html = part(f"{page}.html", context("harmless"))
    assert "<style" not in html
    assert "style=" not in html
    assert "http:" not in html
    assert "https:" not in html
    assert html.count("<script") == 1
    assert '<script type="module" src="/static/live.js?v=' in html
    assert not any(f" on{event}=" in html for event in ("click", "submit", "load", "change"))
