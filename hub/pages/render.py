"""From templates to pages and parts of pages. Everything is escaped; no template says otherwise.

All templates and static files are read once, when this module is imported: no request waits for a disk. A
template is compiled when it is first shown, which takes some milliseconds; all at once, a fifth of a start.
"""

import hashlib
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from aiohttp import web
from jinja2 import DictLoader, Environment, StrictUndefined, pass_context
from jinja2.runtime import Context

from hub.daywords import completeness
from hub.figures import count, span
from hub.kindwords import kind_word
from hub.operators import csrf_token
from hub.pages import money, words
from hub.terminalwords import State, earlier_certificate, old_copy, recalled, remarks, terminal_state

_PACKAGE = files(__package__)
_UTF8_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def _read(folder: str) -> dict[str, str]:
    found = (_PACKAGE / folder).iterdir()
    return {file.name: file.read_text(encoding="utf-8") for file in found if file.is_file()}


STATIC = _read("static")
_VERSIONS = {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in STATIC.items()}


def static(name: str) -> str:
    """The address of a static file; it changes with the file's content, so browsers may keep it for ever."""
    return f"/static/{name}?v={_VERSIONS[name]}"


async def static_file(request: web.Request) -> web.Response:
    """GET /static/{name}: one of the few files this package has; nothing else can be asked for."""
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound(text="There is no such file.")
    current = request.query.get("v") == _VERSIONS[name]
    return web.Response(
        text=STATIC[name],
        content_type=_UTF8_TYPES[name[name.rindex(".") :]],
        charset="utf-8",
        headers={"Cache-Control": "public, max-age=31536000, immutable" if current else "no-cache"},
    )


def utc(at_ms: int) -> str:
    """A moment for readers without script: "21 Nov 2026 08:15 UTC"."""
    return _moment(at_ms).strftime("%d %b %Y %H:%M UTC").lstrip("0")


def iso(at_ms: int) -> str:
    """A moment for ``<time datetime>``: "2026-11-21T08:15:02Z"."""
    return _moment(at_ms).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(at_ms: int) -> datetime:
    # A terminal's clock can say anything; a page that shows it must not fail on the year 60000.
    return datetime.fromtimestamp(min(max(at_ms, 0), 253_402_300_799_000) // 1000, UTC)


def _with_exponent(context: Context, amount_minor: int, *, signed: bool = False) -> str:
    return money.plain(amount_minor, context["exponent"], signed=signed)


@pass_context
def _plain(context: Context, amount_minor: int) -> str:
    return _with_exponent(context, amount_minor)


@pass_context
def _signed(context: Context, amount_minor: int) -> str:
    return _with_exponent(context, amount_minor, signed=True)


@pass_context
def _money(context: Context, amount_minor: int) -> str:
    return f"{_with_exponent(context, amount_minor)}\u00a0{context['currency']}"


@pass_context
def _state(context: Context, row: Any) -> State:
    return terminal_state(row, context["now_ms"])


def _environment() -> Environment:
    environment = Environment(
        loader=DictLoader(_read("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["static"] = static
    environment.filters |= {
        "plain": _plain,
        "signed": _signed,
        "money": _money,
        "figure": lambda number: money.plain(number, 0),
        "utc": utc,
        "iso": iso,
        "span": span,
        "doubt": words.doubt,
        "kind": kind_word,
        "completeness": completeness,
        "change": lambda number: money.plain(number, 0, signed=True),
        "count": count,
        "authors": words.authors,
        "terminals": words.terminals,
        "place": words.place,
        "state": _state,
        "remarks": remarks,
        "old_copy": old_copy,
        "earlier_certificate": earlier_certificate,
        "recalled": recalled,
    }
    return environment


_ENVIRONMENT = _environment()


def part(template: str, context: dict[str, Any]) -> str:
    """The HTML of one live part of a page."""
    return _ENVIRONMENT.get_template(template).render(context)


def page(
    request: web.Request, template: str, context: dict[str, Any], status: int = HTTPStatus.OK
) -> web.Response:
    """A whole page for a browser; never kept by it, because it shows money and changes by the second."""
    frame = {"csrf": csrf_token(request), "section": "", "events": "", "notice": None}
    return web.Response(
        text=part(template, frame | context),
        content_type="text/html",
        charset="utf-8",
        status=status,
        headers={"Cache-Control": "no-store"},
    )
