"""The machine's addresses: the hub's certificate is for all of them, and they change."""

import asyncio
import logging
import ssl

from hub.announce import Announcer, Interface, announced_host, host_names
from hub.authority import Authority

log = logging.getLogger(__name__)


class Follower:
    """Keeps certificate and announcement with the machine's addresses as they change."""

    def __init__(
        self,
        authority: Authority,
        announcer: Announcer,
        context: ssl.SSLContext,
        interfaces: tuple[Interface, ...],
    ) -> None:
        self._authority = authority
        self._announcer = announcer
        self._context = context
        self._certified = interfaces

    async def seen(self, interfaces: tuple[Interface, ...]) -> None:
        """These are the machine's interfaces now."""
        if interfaces != self._certified:
            pem = certificate(self._authority, interfaces)
            await asyncio.to_thread(self._authority.load_server_certificate, self._context, pem)
            self._certified = interfaces
            log.info("the hub's addresses are now %s", ", ".join(one.address for one in interfaces))
        await self._announcer.update(interfaces)


def certificate(authority: Authority, interfaces: tuple[Interface, ...]) -> bytes:
    """The hub's TLS certificate, PEM, for all names and addresses of this machine."""
    names = (*host_names(), announced_host(authority.fleet))
    addresses = dict.fromkeys((*(one.address for one in interfaces), "127.0.0.1", "::1"))
    return authority.server_certificate(names, addresses)
