"""A terminal of the benchmark on the network: one kept-alive connection, and what it needs of answers."""

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Final

from crdt.cursor import Cursor, read_cursor
from crdt.frames import FRAME_HEADER_BYTES, Ack, PageFrame, frame_type
from crdt.wire import Reader

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_AGAIN: Final = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answered:
    """An answer of the hub. `retry_after_s`: None where it did not say."""

    status: int
    retry_after_s: int | None
    body: bytes


@dataclass(frozen=True)
class Skimmed:
    """What a terminal needs of an answer."""

    acknowledged: bool
    final: bool
    position: int
    until: Cursor
    cards: int


class Line(asyncio.Protocol):
    """One kept-alive connection: a request's bytes in, the answer out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[Answered] | None = None
        self._transport: asyncio.Transport | None = None
        self._place: tuple[str, int, ssl.SSLContext] | None = None

    async def connect(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Shake hands."""
        self._place = host, port, context
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, host, port, ssl=context)

    async def ask(self, request: bytes) -> Answered:
        """The answer to a request, which is a whole one with its head; on a new connection where the hub has
        closed the one before, as it does when nothing is asked for long."""
        if self._transport is None and self._place is not None:
            await self.connect(*self._place)
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        length, again = _LENGTH.search(head), _AGAIN.search(head)
        assert length is not None
        if len(self._buffer) < end + 4 + int(length[1]):
            return
        body, self._buffer = bytes(self._buffer[end + 4 :]), bytearray()
        if self._answer is not None:
            self._answer.set_result(Answered(int(head[9:12]), None if again is None else int(again[1]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._buffer = None, bytearray()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the hub closed a connection"))


def skimmed(answer: bytes) -> Skimmed | None:
    """What is in the body of an answer; None without a settlement page."""
    acknowledged, at = False, 0
    found: Skimmed | None = None
    while at < len(answer):
        kind, size = frame_type(answer[at : at + FRAME_HEADER_BYTES])
        at += FRAME_HEADER_BYTES
        if kind is Ack:
            acknowledged = True
        elif kind is PageFrame:
            found = _page(Reader(answer[at : at + size]), acknowledged)
        at += size
    return found


def _page(reader: Reader, acknowledged: bool) -> Skimmed:
    """`acknowledged`: by what came before it."""
    reader.raw(1 + 16 + 16 + 16)  # version, fleet, signer, series
    reader.varint()  # base
    read_cursor(reader)
    until, position = read_cursor(reader), reader.varint()
    final, cards = bool(reader.uint(1)), reader.varint()
    return Skimmed(acknowledged, final, position, until, cards)
