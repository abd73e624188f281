"""Asks a running hub or terminal over its control socket: JSON over HTTP on a Unix socket."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp

from .errors import DemoError, NotAnswering

TIMEOUT_S: Final = 15.0
MAX_SOCKET_PATH_BYTES: Final = 107  # sun_path of unix(7), without its final zero

Json = dict[str, Any]


class Refused(DemoError):
    """The process answered, and said no; the message is its own sentence."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Control:
    """A client for one control socket; close it."""

    def __init__(self, socket: Path, name: str) -> None:
        self._socket = socket
        self._name = name
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, **query: str | int) -> Any:
        """The JSON answer to GET; NotAnswering when nobody is there, Refused when the answer is no."""
        return await self._ask("GET", path, params=query)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer to POST."""
        return await self._ask("POST", path, json=dict(body or {}))

    async def close(self) -> None:
        """Closes the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            async with self._connected().request(method, f"http://localhost{path}", **options) as answer:
                said = await answer.json(content_type=None)
                if answer.status >= 400:
                    raise Refused(_sentence(said, self._name), answer.status)
                return said
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise NotAnswering(f"{self._name} does not answer: {error or 'it took too long'}.") from error

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # A kept connection would be the one to a process that has been killed since.
                connector=aiohttp.UnixConnector(path=str(self._socket), force_close=True),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            )
        return self._session


def _sentence(said: object, name: str) -> str:
    if isinstance(said, dict) and isinstance(said.get("message"), str):
        return str(said["message"])
    return f"{name} refused, without saying why."
