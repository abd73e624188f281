"""HTTPS to the hub or a peer: its limits, answers of a bounded size, and what can go wrong as typed errors.

What networks, proxies, TLS and strangers bring becomes one of these here, each a sentence: HubUnreachable,
HubDistrusted, HubTooSlow, HubRefused, AnswerRefused. `word` is what a sentence calls the other side.
"""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from crdt.errors import RefusalCode
from crdt.protocol import MAX_JSON_BYTES
from edge.addresses import HubAddress
from edge.errors import AnswerRefused, HubDistrusted, HubRefused, HubTooSlow, HubUnreachable

CONNECT_TIMEOUT_S = 10.0
KEPT_S = 70.0
"""How long a connection is kept without an exchange: a hub keeps it for 75 s unless set otherwise, and a
handshake costs it as much as an exchange, and a terminal more data."""
MAX_SENTENCE_CHARS = 300
"""Of another machine's words, in an error of ours."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Longest time for a whole exchange, longest silence within one, and until it is connected over TLS."""

    total_s: float
    read_s: float
    connect_s: float = CONNECT_TIMEOUT_S


def open_http(context: ssl.SSLContext, limits: Limits) -> aiohttp.ClientSession:
    """An HTTP client that does nothing by itself: no cookies, no environment, nothing unpacked; all timed."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=1, keepalive_timeout=KEPT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=limits.total_s,
            sock_connect=min(limits.connect_s, limits.total_s),
            sock_read=limits.read_s,
        ),
        headers={"Accept-Encoding": "identity", "User-Agent": "farebox-edge"},
        auto_decompress=False,
        trust_env=False,
    )


@asynccontextmanager
async def translated(address: HubAddress, word: str = "hub") -> AsyncIterator[None]:
    """Turns what aiohttp and ssl raise into this package's errors."""
    try:
        yield
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise HubDistrusted(
            f"What answers at {address} is not this fleet's {word}, or does not take this terminal's"
            f" certificate ({_reason(error)})."
        ) from error
    except (
        aiohttp.ClientPayloadError,
        aiohttp.ClientResponseError,
        aiohttp.http.HttpProcessingError,
    ) as error:
        if isinstance(error, aiohttp.ClientHttpProxyError):
            raise HubUnreachable(
                f"The proxy does not reach {address} ({error.status} {error.message})."
            ) from error
        raise AnswerRefused(
            RefusalCode.MALFORMED, f"it is damaged or cut short ({_reason(error)})"
        ) from error
    except TimeoutError as error:
        raise HubTooSlow(f"The {word} at {address} took too long to answer.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise HubUnreachable(f"No {word} answers at {address} ({_reason(error)}).") from error


async def object_in(response: aiohttp.ClientResponse, word: str = "hub") -> dict[str, Any]:
    """The JSON object in an answer. Raises HubRefused for an error, AnswerRefused for anything else."""
    if response.status != HTTPStatus.OK:
        raise await refusal_of(response, word)
    raw = await small_body(response)
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise AnswerRefused(RefusalCode.MALFORMED, "it is not a JSON object")
    return answer


async def refusal_of(response: aiohttp.ClientResponse, word: str) -> HubRefused:
    """What an error answer says, made safe to show: {"error", "message"} or the bare HTTP status."""
    raw = await small_body(response)
    try:
        said = json.loads(raw)
        code, text = str(said["error"]), str(said["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        code, text = "", f"HTTP {response.status} {response.reason}"
    return HubRefused(f"The {word} refused: {shown(text)}", shown(code))


async def small_body(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises AnswerRefused as soon as there is more of it than MAX_JSON_BYTES."""
    received = bytearray()
    async for chunk in response.content.iter_any():
        received += chunk
        if len(received) > MAX_JSON_BYTES:
            raise AnswerRefused(RefusalCode.TOO_LARGE, f"it is larger than {MAX_JSON_BYTES} bytes")
    return bytes(received)


def shown(text: str) -> str:
    """Another machine's words, made safe and short enough for a sentence of ours."""
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_SENTENCE_CHARS]


def _reason(error: BaseException) -> str:
    return shown(str(error) or type(error).__name__)
