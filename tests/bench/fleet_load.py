"""Plays a part of a fleet against a hub, in a process of its own: papers and commands in, results out.

The first line on standard input is `fleet.Fleet.part`, the second where the hub is; each further one is a
`Command`, answered with a line: a `Result`. Every terminal has its own kept-alive TLS connection and behaves
as the real one does: a tap goes up at once, with all that gathered while the hub was asked or had no time;
silence ends in a heartbeat; and a hub that has no time is left alone for as long as it says. But what it is
sent it does not read to the end, because that would take the hub's place on a small machine.
"""

import asyncio
import json
import random
import ssl
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from crdt.block import parse, seal
from crdt.cursor import Cursor, beginning
from crdt.documents import FLEET_DOCUMENT, TERMINAL_DOCUMENT
from crdt.facts import NO_CONTEXT, CardId, Delta, FleetId, Kind, TerminalId
from crdt.frames import BlockFrame, CertificateFrame, Hello, Message, ShortBlockFrame, encode_frame
from crdt.frontier import GENESIS, Head
from crdt.numbering import shorten
from crdt.protocol import CONTENT_TYPE, SYNC
from crdt.pull import Pull
from crdt.revocations import REVOKED_DOCUMENT
from crdt.signing import SigningKey
from crdt.terminal_document import TerminalDocument
from crdt.terminal_status import Status
from edge.backoff import Backoff
from tests.bench.fleet_line import Line, Skimmed, skimmed
from tests.hub.tls import client_context

BACKOFF_S: Final = (1.0, 60.0)  # a terminal's settings, unless set otherwise


@dataclass(frozen=True)
class Command:
    """Load for some seconds. Times of one connection, each on the average.

    `tap_s`: from one tap to the next. `heartbeat_s`: the longest silence. `behind_s`: how old the settlement
    is that it has when it asks. Few connections stand for many terminals, which speak less often and miss
    more in between.
    """

    seconds: float
    tap_s: float
    heartbeat_s: float
    behind_s: float


@dataclass
class Result:
    """What came of it. Times in ms."""

    made: int = 0  # taps
    acknowledged: int = 0  # of those taps
    exchanges: int = 0  # that were answered
    refused: int = 0  # or not answered
    requests: int = 0
    cards: int = 0  # in settlement pages
    received_bytes: int = 0
    ages: list[float] = field(default_factory=list)  # of a tap when it was acknowledged, or at the end

    def add(self, other: "Result") -> None:
        """Count what another process has seen."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


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
        self._backoff = Backoff(*BACKOFF_S, source.random)
        self._head = Head(0, GENESIS)
        self._next_tap_s = 0.0
        self._open: list[float] = []  # when the taps were made that are not sealed
        self._sealed: list[float] = []  # those that are, and that the hub has not acknowledged
        self._blocks: list[Message] = []  # of these
        self._installed: deque[tuple[float, int]] = deque([(0.0, given["position"])])
        self._staged: tuple[int, Cursor] | None = None  # of a settlement that is not whole: base, and how far
        self._line = Line()

    async def connect(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Shake hands."""
        self._place = f"{host}:{port}"
        await self._line.connect(host, port, context)

    async def live(self, command: Command, began_s: float, result: Result) -> None:
        """Take taps and speak with the hub, until the time is up."""
        end_s, online = began_s + command.seconds, True
        self._next_tap_s = began_s + self._gap_s(command)
        next_s = began_s + self._source.uniform(0, command.heartbeat_s)
        while (due_s := min(next_s, self._next_tap_s) if online else next_s) < end_s:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            now_s = time.perf_counter()
            self._tap(min(now_s, end_s), command, result)
            wait_s = await self._speak(now_s, began_s, command.behind_s, result)
            online, next_s = wait_s is None, time.perf_counter() + (wait_s or command.heartbeat_s)
        await asyncio.sleep(max(0.0, end_s - time.perf_counter()))
        self._tap(end_s, command, result)
        left = [*self._sealed, *self._open]
        result.ages += [(end_s - made_s) * 1000 for made_s in left if began_s <= made_s <= end_s]

    def _gap_s(self, command: Command) -> float:
        return self._source.expovariate(1 / command.tap_s)

    def _tap(self, until_s: float, command: Command, result: Result) -> None:
        """The taps that were made up to now."""
        while self._next_tap_s <= until_s:
            self._open.append(self._next_tap_s)
            self._next_tap_s += self._gap_s(command)
            result.made += 1

    async def _speak(self, now_s: float, began_s: float, behind_s: float, result: Result) -> float | None:
        """One exchange, and as many more as the settlement has pages; how long to wait after a refusal."""
        self._seal()
        if self._staged is None:
            base = self._base(now_s - behind_s)
            self._staged = base, beginning(base)
        (base, after), blocks = self._staged, self._blocks
        while True:
            answer, retry_after_s = await self._exchange(
                Pull(self._series, base, after, self._documents), blocks, result
            )
            if answer is None or (blocks and not answer.acknowledged):
                result.refused += 1
                return (
                    self._backoff.next_s() if retry_after_s is None else self._backoff.asked_s(retry_after_s)
                )
            if blocks:
                self._acknowledged(began_s, result)
            blocks = []
            result.cards += answer.cards
            result.exchanges += 1
            if answer.final:
                break
            after = answer.until
            self._staged = base, after
        self._staged = None
        self._backoff.reset()
        self._installed.append((time.perf_counter(), answer.position))
        return None

    def _base(self, before_s: float) -> int:
        """The last position installed before this time."""
        while len(self._installed) > 1 and self._installed[1][0] <= before_s:
            self._installed.popleft()
        return self._installed[0][1]

    def _acknowledged(self, began_s: float, result: Result) -> None:
        """The hub has taken what was sealed; what counts was made since this load began."""
        now_s = time.perf_counter()
        ages = [(now_s - made_s) * 1000 for made_s in self._sealed if made_s >= began_s]
        result.acknowledged += len(ages)
        result.ages += ages
        self._sealed, self._blocks = [], []

    def _seal(self) -> None:
        """A block of the open taps."""
        if not self._open:
            return
        at_ms, numbers, fares = time.time_ns() // 1_000_000, dict[CardId, int](), list[Delta]()
        for seq, _ in enumerate(self._open, self._head.seq + 1):
            card, number = self._source.choice(self._cards)
            fares.append(
                Delta(self._key.replica, seq, CardId(bytes.fromhex(card)), Kind.FARE, -250, at_ms, NO_CONTEXT)
            )
            numbers[fares[-1].card] = number
        block = parse(seal(self._key, self._fleet, fares, self._head.hash).raw)
        self._head = block.head
        short = shorten(block, numbers)
        self._blocks.append(BlockFrame(block.raw) if short is None else ShortBlockFrame(short))
        self._sealed, self._open = [*self._sealed, *self._open], []

    async def _exchange(
        self, pull: Pull, blocks: Sequence[Message], result: Result
    ) -> tuple[Skimmed | None, int | None]:
        """What the hub says; or None, and when to come again."""
        frontier = {self._key.replica: self._head} if self._head.seq else {}
        messages: list[Message] = [Hello(self._fleet, self._key.replica, frontier), _STATUS, pull]
        if blocks:
            messages += [self._certificate, *blocks]
        body = b"".join(map(encode_frame, messages))
        head = (
            f"POST {SYNC} HTTP/1.1\r\nHost: {self._place}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        result.requests += 1
        try:
            answer = await self._line.ask(head.encode() + body)
        except OSError:  # the hub has closed the connection at that moment
            return None, None
        result.received_bytes += len(answer.body)
        return skimmed(answer.body) if answer.status == 200 else None, answer.retry_after_s


_STATUS: Final = Status({"held": 0, "held_minor": 0, "head_seq": 1, "position": 1, "route": "110"})


async def _play(players: Sequence[Player], command: Command) -> Result:
    result = Result()
    began_s = time.perf_counter()
    await asyncio.gather(*(player.live(command, began_s, result) for player in players))
    return result


async def _main() -> None:
    loop = asyncio.get_running_loop()
    given, place = json.loads(sys.stdin.readline()), json.loads(sys.stdin.readline())
    source = random.Random(given["members"][0]["seed"])  # noqa: S311 - who taps when, and which card
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
