"""Who asks: the terminal behind a request's TLS certificate, as the registry has it at this moment."""

import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from aiohttp import web

from crdt.errors import Revoked, UnknownAuthor
from hub.authority import serial_of
from hub.registry import MAX_TERMINALS, REPLACED, REVOKED, Client, Registry

# What a caller is told whose certificate has ended, and what it takes to go on.
STOPPED: Final = {
    REVOKED: "was revoked: it takes no fares until it is paired anew (farebox-hub invite).",
    REPLACED: "has a newer certificate than this one: it was paired since, maybe on another device. "
    "If this one is to go on, pair it anew (farebox-hub invite).",
}


class Callers:
    """Looks up the certificate of every request: TLS looks at one only when a connection is made."""

    def __init__(self, registry: Registry, now_ms: Callable[[], int]) -> None:
        """`now_ms`: the hub's clock."""
        self._registry = registry
        self._now_ms = now_ms

    async def admitted(self, request: web.Request) -> Client:
        """The caller. UnknownAuthor or Revoked when it may not go on."""
        client = await self._registry.client(serial_of_caller(request))
        if client is None:
            raise UnknownAuthor("This hub did not issue the certificate; pair the terminal again.")
        if client.stopped:
            if client.stopped == REPLACED:
                self._registry.turned_away[client.terminal] = self._now_ms()
            raise Revoked(f"The terminal {client.name} {STOPPED[client.stopped]}")
        return client

    async def standing(self, request: web.Request) -> str:
        """What the caller's certificate is here: "none", "good", "revoked", "replaced" or "unknown"."""
        if not _certificate(request):
            return "none"
        client = await self._registry.client(serial_of_caller(request))
        return "unknown" if client is None else client.stopped or "good"


def serial_of_caller(request: web.Request) -> str:
    """The serial number of the client's certificate, which TLS has verified; UnknownAuthor without one."""
    certificate = _certificate(request)
    if not certificate:
        raise UnknownAuthor("This needs the client certificate of a paired terminal.")
    return _serial_of(certificate)


@lru_cache(MAX_TERMINALS)
def _serial_of(certificate: bytes) -> str:
    """Parsed once: a terminal shows the same certificate with every request."""
    return serial_of(certificate)


def _certificate(request: web.Request) -> bytes:
    tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    return (tls.getpeercert(True) or b"") if isinstance(tls, ssl.SSLObject) else b""
