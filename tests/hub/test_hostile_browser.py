"""Invariant 8: bytes that no browser sends get a typed refusal, before and without a session."""

import asyncio
import logging

import pytest

from hub.operators import LOGIN_PATH, SESSION_COOKIE
from tests.hub.conftest import Depot

FORM = "application/x-www-form-urlencoded"


async def answer(depot: Depot, request: bytes) -> tuple[int, str]:
    """Status and body of the answer to one raw request."""
    tls = await depot.browser_tls()
    reader, writer = await asyncio.open_connection("127.0.0.1", depot.served.port, ssl=tls)
    try:
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body.decode()
    finally:
        writer.close()
        await writer.wait_closed()


def posted(body: bytes, kind: str = FORM, more: bytes = b"") -> bytes:
    head = f"POST {LOGIN_PATH} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return head.encode() + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def asked(target: bytes, more: bytes = b"") -> bytes:
    return (
        b"GET "
        + target
        + b" HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nAccept: text/html\r\n"
        + more
        + b"\r\n"
    )


COOKIE = SESSION_COOKIE.encode()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(posted(b"csrf=\xff\xfe"), 400, id="form bytes"),
        pytest.param(posted(b"csrf=a", f"{FORM}; charset=bogus"), 400, id="unknown charset"),
        pytest.param(posted(b"csrf=a", f"{FORM}; charset=hex"), 400, id="charset that is no text"),
        pytest.param(posted(b"csrf=\\ud800", f"{FORM}; charset=unicode_escape"), 400, id="surrogates"),
        pytest.param(posted(b"csrf=%ff%fe"), 403, id="escaped bytes"),
        pytest.param(posted(b"csrf=%ed%a0%80"), 403, id="escaped surrogate"),
        pytest.param(posted(b"csrf=a", more=b"X-CSRF-Token: \xe9\r\n"), 403, id="token header"),
        pytest.param(posted(b"x", "multipart/form-data; boundary=b"), 403, id="another kind of form"),
        pytest.param(
            posted(b"x", "multipart/form-data; boundary=b", b"X-CSRF-Token: a\r\n"), 403, id="with a token"
        ),
        pytest.param(asked(b"/cards", b"Cookie: " + COOKIE + b"=\xff\xff\r\n"), 303, id="cookie bytes"),
        pytest.param(asked(b"/login", b"Cookie: " + COOKIE + b"=\xff\xff\r\n"), 200, id="at the login"),
        pytest.param(asked(b"/cards/%ff%fe"), 303, id="escaped path"),
    ],
)
async def test_hostile_bytes_are_refused_without_a_traceback(
    depot: Depot, caplog: pytest.LogCaptureFixture, request_bytes: bytes, status: int
) -> None:
    assert (await answer(depot, request_bytes))[0] == status
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []
