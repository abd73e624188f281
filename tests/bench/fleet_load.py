"""Plays a part of a fleet against a hub, in a process of its own: papers and commands in, results out.

The first line on standard input is `fleet.Fleet.part`, the second where the hub is; each further one is a
`Command`, answered with a line: a `Result`. Every terminal has its own kept-alive TLS connection and speaks
as the real one does, down to what it names of documents; but what it is sent it does not read to the end,
because that would take the hub's place on a small machine.
"""

import asyncio
import json
import random
import ssl
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from crdt.block import parse, seal
from crdt.documents import FLEET_DOCUMENT, TERMINAL_DOCUMENT
from crdt.facts import NO_CONTEXT, CardId, Delta, FleetId, Kind, TerminalId
from crdt.frames import (
    FRAME_HEADER_BYTES,
    Ack,
    BlockFrame,
    CertificateFrame,
    Hello,
    Message,
    PageFrame,
    Pull,
    ShortBlockFrame,
    Status,
    encode_frame,
    frame_type,
)
from crdt.frontier import GENESIS, Head
from crdt.numbering import shorten
from crdt.protocol import CONTENT_TYPE, SYNC
from crdt.revocations import REVOKED_DOCUMENT
from crdt.settlement import Cursor, beginning, read_cursor
from crdt.signing import SigningKey
from crdt.terminal_document import TerminalDocument
from crdt.wire import Reader
from tests.hub.tls import client_context

TAPS_IN: Final = (True, True, False)  # of exchanges in turn: a heartbeat and two taps

BACK_OFF_S: Final = 1.0  # after a refusal: "busy, come again"


@dataclass(frozen=True)
class Command:
    """Load for some seconds. `rate`: exchanges a second, at even distances; 0: as many as are answered.

    `behind_s`: how old the settlement is that a terminal has when it asks. Few connections stand for many
    terminals, which speak less often and miss more in between.
    """

    seconds: float
    rate: float
    behind_s: float


@dataclass
class Result:
    """What came of it. Latencies in ms, from when the exchange was due to its last answer."""

    taps: int = 0
    heartbeats: int = 0
    refused: int = 0
    skipped: int = 0  # because the terminal's last one was not answered yet
    requests: int = 0
    cards: int = 0  # in settlement pages
    received_bytes: int = 0
    latencies: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Skimmed:
    """What a terminal needs of an answer."""

    acknowledged: bool
    final: bool
    position: int
    until: Cursor
    cards: int


class Line(asyncio.Protocol):
    """One kept-alive connection: a request's bytes in, the answer's body out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
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
        head = bytes(self._buffer[:end]).lower()
        size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self._buffer) < end + 4 + size:
            return
        body, self._buffer = bytes(self._buffer[end + 4 :]), bytearray()
        if self._answer is not None:
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the hub closed a connection"))


class Player:
    """One terminal."""

    def __init__(self, given: dict[str, Any], member: dict[str, str], source: random.Random) -> None:
        self._fleet = FleetId(bytes.fromhex(given["fleet"]))
        self._series = bytes.fromhex(given["series"])
        self._cards: Sequence[tuple[str, int]] = given["cards"]
        self._key = SigningKey(bytes.fromhex(member["seed"]))
        self._certificate = CertificateFrame(bytes.fromhex(member["certificate"]))
        document = TerminalDocument.new(TerminalId(bytes.fromhex(member["terminal"])))
        self._documents = {
            FLEET_DOCUMENT: given["fares_version"],
            REVOKED_DOCUMENT: 0,
            TERMINAL_DOCUMENT: document.version,
        }
        self._source = source
        self._head = Head(0, GENESIS)
        self._unacknowledged: list[Message] = []
        self._installed: deque[tuple[float, int]] = deque([(0.0, given["position"])])
        self._one_at_a_time = asyncio.Lock()
        self._line = Line()

    @property
    def busy(self) -> bool:
        """Whether it waits for an answer."""
        return self._one_at_a_time.locked()

    async def connect(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Shake hands."""
        loop = asyncio.get_running_loop()
        self._place = f"{host}:{port}"
        await loop.create_connection(lambda: self._line, host, port, ssl=context)

    async def speak(self, tap: bool, due_s: float, behind_s: float, result: Result) -> None:
        """One exchange, and as many more as the settlement has pages."""
        async with self._one_at_a_time:
            if tap:
                self._tap()
            base = self._base(time.perf_counter() - behind_s)
            after, sent = beginning(base), self._unacknowledged
            while True:
                answer = await self._exchange(Pull(self._series, base, after, self._documents), sent, result)
                if answer is None or not answer.acknowledged:
                    result.refused += 1
                    return
                self._unacknowledged, sent = [], []
                result.cards += answer.cards
                if answer.final:
                    break
                after = answer.until
            self._installed.append((time.perf_counter(), answer.position))
        result.latencies.append((time.perf_counter() - due_s) * 1000)
        result.taps += tap
        result.heartbeats += not tap

    def _base(self, before_s: float) -> int:
        """The last position installed before this time."""
        while len(self._installed) > 1 and self._installed[1][0] <= before_s:
            self._installed.popleft()
        return self._installed[0][1]

    def _tap(self) -> None:
        card, number = self._source.choice(self._cards)
        at_ms = time.time_ns() // 1_000_000
        fare = Delta(
            self._key.replica,
            self._head.seq + 1,
            CardId(bytes.fromhex(card)),
            Kind.FARE,
            -250,
            at_ms,
            NO_CONTEXT,
        )
        block = parse(seal(self._key, self._fleet, [fare], self._head.hash).raw)
        self._head = block.head
        short = shorten(block, {fare.card: number})
        self._unacknowledged.append(BlockFrame(block.raw) if short is None else ShortBlockFrame(short))

    async def _exchange(self, pull: Pull, blocks: Sequence[Message], result: Result) -> Skimmed | None:
        frontier = {self._key.replica: self._head} if self._head.seq else {}
        messages: list[Message] = [Hello(self._fleet, self._key.replica, frontier), _STATUS, pull]
        if blocks:
            messages += [self._certificate, *blocks]
        body = b"".join(map(encode_frame, messages))
        head = (
            f"POST {SYNC} HTTP/1.1\r\nHost: {self._place}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        status, answer = await self._line.ask(head.encode() + body)
        result.requests += 1
        result.received_bytes += len(answer)
        return _skim(answer, bool(blocks)) if status == 200 else None


_STATUS: Final = Status({"held": 0, "held_minor": 0, "head_seq": 1, "position": 1, "route": "110"})


def _skim(answer: bytes, brought: bool) -> Skimmed | None:
    acknowledged, at = not brought, 0
    found: Skimmed | None = None
    while at < len(answer):
        kind, size = frame_type(answer[at : at + FRAME_HEADER_BYTES])
        at += FRAME_HEADER_BYTES
        if kind is Ack:
            acknowledged = True
        elif kind is PageFrame:
            reader = Reader(answer[at : at + size])
            reader.raw(1 + 16 + 16 + 16)  # version, fleet, signer, series
            reader.varint()  # base
            read_cursor(reader)
            until, position = read_cursor(reader), reader.varint()
            final, cards = bool(reader.uint(1)), reader.varint()
            found = Skimmed(acknowledged, final, position, until, cards)
        at += size
    return found


async def _play(players: Sequence[Player], command: Command) -> Result:
    result = Result()
    began_s = time.perf_counter()
    if command.rate:
        await _paced(players, command, result, began_s)
    else:
        await asyncio.gather(*(_on_and_on(player, command, result, began_s) for player in players))
    return result


async def _paced(players: Sequence[Player], command: Command, result: Result, began_s: float) -> None:
    tasks: list[asyncio.Task[None]] = []
    for number in range(int(command.seconds * command.rate)):
        due_s = began_s + number / command.rate
        if (early_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(early_s)
        round_, place = divmod(number, len(players))
        player, tap = players[place], TAPS_IN[(round_ + place) % len(TAPS_IN)]
        if player.busy:
            result.skipped += 1
            continue
        tasks.append(asyncio.create_task(player.speak(tap, due_s, command.behind_s, result)))
    await asyncio.gather(*tasks)


async def _on_and_on(player: Player, command: Command, result: Result, began_s: float) -> None:
    number = 0
    while (now_s := time.perf_counter()) - began_s < command.seconds:
        before = result.refused
        await player.speak(TAPS_IN[number % len(TAPS_IN)], now_s, command.behind_s, result)
        if result.refused > before:
            await asyncio.sleep(BACK_OFF_S)
        number += 1


async def _main() -> None:
    loop = asyncio.get_running_loop()
    given, place = json.loads(sys.stdin.readline()), json.loads(sys.stdin.readline())
    source = random.Random(given["members"][0]["seed"])  # noqa: S311 - which card taps
    key_pem = given["tls_key_pem"].encode()
    players = []
    for member in given["members"]:
        players.append(Player(given, member, source))
        context = client_context(given["root_pem"], key_pem, member["tls_pem"])
        await players[-1].connect(place["host"], place["port"], context)
    _say({"connected": len(players)})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _say(asdict(await _play(players, Command(**json.loads(line)))))


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
