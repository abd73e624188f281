"""Reading requests' bodies: whatever was sent, the answer is the value or a refusal with a sentence."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from crdt.errors import RefusalCode
from hub.errors import RequestRefused

FORM = "application/x-www-form-urlencoded"
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})  # others are never sent, and some are no text at all


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object whose text can be stored: half surrogate pairs are refused."""
    try:
        body = json.loads((await request.read()).decode("utf-8"))
        json.dumps(body, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RequestRefused(RefusalCode.MALFORMED.name.lower(), "The request is not a JSON object.")
    return body


async def form_fields(request: web.Request) -> Mapping[str, object]:
    """The fields of a form in UTF-8; afterwards `request.post()` gives them again."""
    if (request.charset or "utf-8").lower() in CHARSETS:
        with suppress(ValueError):
            return await request.post()
    raise RequestRefused(RefusalCode.MALFORMED.name.lower(), "The form is not UTF-8 text.")
