"""The HTTPS server: the application behind guarded sockets, until it is told to stop."""

import contextlib
import errno
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

from hub.connections import BACKLOG, ConnectionLimits, GuardedSite
from hub.errors import SetupError
from hub.settings import HubSettings

log = logging.getLogger(__name__)

FILES = 256  # that a hub opens beside its connections: database, control socket, announcement, libraries
SHUTDOWN_S = 5.0  # how long requests in progress may take when the hub is told to stop
LINGER_S = 2.0  # how long the rest of a body is read that nobody wants, so that the answer arrives
MAX_BODY_BYTES = (
    64 * 1024
)  # of a request that is read as a whole; sync bodies are streamed and have their own


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for host and port; "" is every address of either kind. SetupError when taken."""
    addresses = ["0.0.0.0", "::"] if not host else [host]  # noqa: S104  (the hub is there to be reached)
    listeners: list[socket.socket] = []
    for address in addresses:
        try:
            listeners.append(_bind(address, port))
        except OSError as error:
            if address == "::" and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                continue  # a machine without IPv6
            for listener in listeners:
                listener.close()
            raise SetupError(_why_not(address, port, error)) from error
        port = port or listeners[0].getsockname()[1]
    return listeners


def url_of(host: str, port: int) -> str:
    """Where a browser on this machine finds what listens there."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  (bound to, and nothing to open)
        return f"https://localhost:{port}"
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def make_room(connections: int) -> None:
    """Let this process have a file for each connection, as far as the system lets it; else the log tells."""
    wanted = connections + FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "server.connections is %d, and this process may open %d files only; raise LimitNOFILE of the "
            "service to %d, or lower the setting",
            *(connections, hard, wanted),
        )


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, listeners: list[socket.socket], context: ssl.SSLContext, settings: HubSettings
) -> AsyncIterator[GuardedSite]:
    """The application, served until the block ends; then requests in progress get SHUTDOWN_S to finish."""
    runner = web.AppRunner(
        app,
        keepalive_timeout=settings.idle_timeout_s,
        shutdown_timeout=SHUTDOWN_S,
        lingering_time=LINGER_S,
        auto_decompress=False,  # nobody here sends compressed bodies but who wants to fill the memory
        access_log=None,
    )
    await runner.setup()
    site = GuardedSite(runner, listeners, context, _connection_limits(settings))
    try:
        await site.start()
        yield site
    finally:
        await runner.cleanup()
        await site.drop_all()


@contextlib.asynccontextmanager
async def serving_locally(app: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    """The application on a Unix socket, until the block ends."""
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


def _connection_limits(settings: HubSettings) -> ConnectionLimits:
    """The limits of a connection, from the settings."""
    return ConnectionLimits(
        connections=settings.connections,
        connections_per_address=settings.connections_per_address,
        handshake_timeout_s=settings.handshake_timeout_s,
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        send_timeout_s=settings.send_timeout_s,
    )


def _bind(address: str, port: int) -> socket.socket:
    family, _, _, _, target = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(target)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _why_not(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} is in use by another program (maybe another hub). "
            f"Stop that one (`ss -ltnp 'sport = :{port}'` names it), or set server.port."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"Port {port} needs privileges this user does not have. Set server.port above 1023, such as 8443."
        )
    return f"The hub cannot listen on {address} port {port}: {error.strerror or error}. Check server.host."
