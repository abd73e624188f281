"""Plays a part of a fleet against a hub, in a process of its own: papers and commands in, results out.

The first line on standard input is `fleet.Fleet.part`, the second where the hub is; each further one is a
`Command`, answered with a line: a `Result`. Few connections stand for many terminals, each with its own taps
and settlement, which behave as real ones do: a tap goes up at once, with all that gathered while the hub was
asked or had no time; silence ends in a heartbeat; and a hub that has no time is left alone for as long as it
says. But what they are sent they do not read to the end, because that would take the hub's place on a small
machine.
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
from http import HTTPStatus
from typing import Any, Final

from crdt.block import parse, seal
from crdt.cursor import beginning
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
from tests.bench.fleet_seat import LATE_S, Command, Seat
from tests.hub.tls import client_context

BACKOFF_S: Final = (1.0, 60.0)  # a terminal's settings, unless set otherwise
MAX_POSITIONS: Final = 4096  # that a connection remembers having had


@dataclass
class Result:
    """What came of it. Times in ms."""

    acknowledged: int = 0  # taps
    overdue: int = 0  # taps that were to be acknowledged by the end, and were not
    exchanges: int = 0  # that were answered
    pages: int = 0  # of these, those that went on with a settlement
    refused: int = 0  # or not answered
    cards: int = 0  # in settlement pages
    received_bytes: int = 0
    ages: list[float] = field(default_factory=list)  # of a tap when it was acknowledged, or of one overdue

    def add(self, other: "Result") -> None:
        """Count what another process has seen."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


class Player:
    """One connection, and the terminals that it stands for: as one identity, and each with a ledger as old as
    its last exchange."""

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
        self._sealed: list[float] = []  # when the taps were made that the hub has not acknowledged
        self._blocks: list[Message] = []  # of these
        self._positions: deque[tuple[float, int]] = deque([(0.0, given["position"])])  # and when it had them
        self._line = Line()

    async def connect(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Shake hands."""
        self._place = f"{host}:{port}"
        await self._line.connect(host, port, context)

    async def live(self, command: Command, terminals: int, result: Result) -> None:
        """Be so many terminals that take taps and speak with the hub, until the time is up."""
        began_s = time.perf_counter()
        end_s = began_s + command.seconds
        seats = [self._seat(command, began_s) for _ in range(terminals)]
        while seats:
            seat = min(seats, key=lambda one: one.due_s)
            if seat.due_s >= end_s:
                break
            await asyncio.sleep(max(0.0, seat.due_s - time.perf_counter()))
            seat.tap(min(time.perf_counter(), end_s), command, self._source)
            await self._speak(seat, command, result)
        await asyncio.sleep(max(0.0, end_s - time.perf_counter()))
        unheard = [seat for seat in seats if seat.due_s < end_s - LATE_S]
        for seat in unheard:
            seat.tap(end_s, command, self._source)
        overdue = [*self._sealed, *(made_s for seat in unheard for made_s in seat.open)]
        result.overdue += len(overdue)
        result.ages += [(end_s - made_s) * 1000 for made_s in overdue]
        self._sealed = []  # the blocks go up in the next load, where they do not count

    def _seat(self, command: Command, now_s: float) -> Seat:
        """A terminal somewhere between two of its exchanges, with the taps that it collects."""
        spoke_s = now_s - self._source.uniform(0, command.heartbeat_s)
        untold_s = spoke_s if spoke_s + command.collect_s > now_s else now_s
        seat = Seat(self._position(spoke_s), untold_s + self._source.expovariate(1 / command.tap_s))
        seat.spoke(spoke_s, command)
        return seat

    def _position(self, at_s: float) -> int:
        """The newest that was known then, or the oldest that is remembered."""
        known = (position for known_s, position in reversed(self._positions) if known_s <= at_s)
        return next(known, self._positions[0][1])

    async def _speak(self, seat: Seat, command: Command, result: Result) -> None:
        """One exchange, and as many more as the settlement has pages."""
        self._seal(seat)
        if seat.staged is None:
            seat.staged = seat.position, beginning(seat.position)
        (base, after), blocks = seat.staged, self._blocks
        while True:
            pull = Pull(self._series, base, after, self._documents)
            answer, again_s = await self._exchange(pull, blocks, result)
            now_s = time.perf_counter()
            if answer is None or (blocks and not answer.acknowledged):
                result.refused += 1
                backoff = self._backoff
                seat.was_refused(now_s, backoff.next_s() if again_s is None else backoff.asked_s(again_s))
                return
            if blocks:
                self._acknowledged(now_s, result)
            blocks = []
            result.exchanges += 1
            result.cards += answer.cards
            if answer.final:
                break
            result.pages += 1
            after = answer.until
            seat.staged = base, after
        self._backoff.reset()
        seat.staged, seat.position = None, answer.position
        seat.spoke(now_s, command)
        self._positions.append((now_s, answer.position))
        if len(self._positions) > MAX_POSITIONS:
            self._positions.popleft()

    def _acknowledged(self, now_s: float, result: Result) -> None:
        """The hub has taken what was sealed."""
        result.acknowledged += len(self._sealed)
        result.ages += [(now_s - made_s) * 1000 for made_s in self._sealed]
        self._sealed, self._blocks = [], []

    def _seal(self, seat: Seat) -> None:
        """A block of the terminal's open taps."""
        if not seat.open:
            return
        at_ms, numbers, fares = time.time_ns() // 1_000_000, dict[CardId, int](), list[Delta]()
        for seq, _ in enumerate(seat.open, self._head.seq + 1):
            card, number = self._source.choice(self._cards)
            fares.append(
                Delta(self._key.replica, seq, CardId(bytes.fromhex(card)), Kind.FARE, -250, at_ms, NO_CONTEXT)
            )
            numbers[fares[-1].card] = number
        block = parse(seal(self._key, self._fleet, fares, self._head.hash).raw)
        self._head = block.head
        short = shorten(block, numbers)
        self._blocks.append(BlockFrame(block.raw) if short is None else ShortBlockFrame(short))
        self._sealed, seat.open = [*self._sealed, *seat.open], []

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
        try:
            answer = await self._line.ask(head.encode() + body)
        except OSError:  # the hub has closed the connection at that moment
            return None, None
        result.received_bytes += len(answer.body)
        return skimmed(answer.body) if answer.status == HTTPStatus.OK else None, answer.retry_after_s


_STATUS: Final = Status({"held": 0, "held_minor": 0, "head_seq": 1, "position": 1, "route": "110"})


async def _play(players: Sequence[Player], command: Command) -> Result:
    result = Result()
    each, more = divmod(command.terminals, len(players))
    lives = [player.live(command, each + (number < more), result) for number, player in enumerate(players)]
    await asyncio.gather(*lives)
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
