"""The card reader: a PN532 on a serial line, I2C or SPI."""

import time
from collections.abc import Callable
from contextlib import suppress

from hardware.cards import PresentedCard, parse_target
from hardware.commands import MORE_FOLLOWS, STATUS_MASK, Command, Status
from hardware.devices import open_link, parse_reader_spec
from hardware.errors import (
    CardGarbled,
    CardGone,
    CardRefused,
    GarbledAnswer,
    ReaderError,
    ReaderFault,
    ReaderLost,
)
from hardware.links import Link
from hardware.reader import FirmwareVersion, Reader
from hardware.recovery import Rung, climb, version

WATCHDOG_S = 10.0
"""How often the chip is asked for its version, so that one which only seems to listen is noticed."""
MAX_COMMAND_BYTES = 262
"""The PN532's own limit for the data of one InDataExchange, and for each part of an answer."""
MAX_ANSWER_BYTES = 4096
"""A card's answer may come in parts; this is where we stop listening."""
MAX_ANSWER_PARTS = 64
"""The same for the number of parts: 16 full ones make the longest answer, and not every card fills them."""

_TRIES = 8
"""Activation attempts in one look, some 5 ms each: it ends by itself; the chip never listens for ever."""
_LOOK_S = 1.0
"""When a look has not ended by now, the chip does not do what it was told."""
_LOOK_ANSWER_BYTES = 80
"""One card: 6 bytes, a UID of 10, an ATS of at most 62 (the PN532 takes frames of 64)."""
_TARGET = b"\x01"

_AUTOMATIC_RATS = b"\x14"
_FIELD_OFF = b"\x01\x00"
_RETRIES = bytes((0x05, 0xFF, 0x01, _TRIES))
_ONE_TYPE_A = b"\x01\x00"
_CARD_LEFT = (
    Status.TIMEOUT,
    Status.WRONG_CONTEXT,
    Status.RELEASED,
    Status.CARD_SWAPPED,
    Status.CARD_DISAPPEARED,
)


def open_reader(spec: str) -> Reader:
    """The reader that `spec` names, opened and awake.

    `uart:/dev/ttyS0`, `i2c` or `spi:CE0`, with options after commas: `reset=25` and, on I2C, `request=12`
    (BCM numbers of the pins wired to RSTPDN and P32). Raises BadSpec, ReaderMissing, ReaderForbidden,
    ReaderBusy or ReaderLost, each with a sentence that says what to do.
    """
    parsed = parse_reader_spec(spec)
    reader = Pn532Reader(open_link(parsed))
    try:
        reader.open()
    except ReaderLost as error:
        reader.close()
        raise ReaderLost(f"No card reader answers at {spec}. {parsed.hint}") from error
    except BaseException:
        reader.close()
        raise
    return reader


class Pn532Reader:
    """A `Reader` on a PN532. Used by one thread at a time."""

    def __init__(self, link: Link, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock_s = clock_s
        self._version: FirmwareVersion | None = None
        self._heard_s = 0.0
        self._selected = False
        self._failures = 0
        self.recoveries = dict.fromkeys(Rung, 0)
        """How often each rung of the ladder has brought the reader back."""

    def open(self) -> FirmwareVersion:
        try:
            self._set_up(self._link.connect())
        except ReaderFault as fault:
            self.recoveries[climb(self._link, Rung.ABORT, fault, self._set_up)] += 1
        if self._version is None:
            raise AssertionError("_set_up keeps the version")
        return self._version

    def poll(self, timeout_s: float) -> PresentedCard | None:
        until_s = self._clock_s() + timeout_s
        while True:
            try:
                card = self._look()
            except ReaderFault as fault:
                self._recover(fault)
                return None
            self._failures = 0
            if card is not None or self._clock_s() >= until_s:
                return card

    def transceive(self, command: bytes, timeout_s: float) -> bytes:
        if not 1 <= len(command) <= MAX_COMMAND_BYTES:
            raise ValueError(f"a card command has 1 to {MAX_COMMAND_BYTES} bytes, not {len(command)}")
        if not self._selected:
            raise CardGone("There is no card on the reader.")
        until_s = self._clock_s() + timeout_s
        answer, more = self._exchange(command, timeout_s)
        part, parts = answer, 1
        while more:
            if not part:
                raise CardGarbled("The card announced more of its answer and sent nothing. Present it again.")
            left_s = until_s - self._clock_s()
            if len(answer) > MAX_ANSWER_BYTES or parts == MAX_ANSWER_PARTS or left_s <= 0:
                raise CardGarbled("The card's answer has no end. Present it again.")
            part, more = self._exchange(b"", left_s)
            answer, parts = answer + part, parts + 1
        return answer

    def close(self) -> None:
        if self._version is not None:
            self._version = None
            with suppress(ReaderError):
                self._link.call(Command.RF_CONFIGURATION, _FIELD_OFF)
        self._link.close()

    def _look(self) -> PresentedCard | None:
        self._watch()
        if self._selected:
            # Without power the card starts afresh, in whatever state it was left, and can be found again.
            self._selected = False
            self._link.call(Command.RF_CONFIGURATION, _FIELD_OFF)
        answer = self._link.call(Command.IN_LIST_PASSIVE_TARGET, _ONE_TYPE_A, _LOOK_ANSWER_BYTES, _LOOK_S)
        self._heard_s = self._clock_s()
        self._selected = answer[:1] != b"\x00"
        return parse_target(answer)

    def _exchange(self, data: bytes, timeout_s: float) -> tuple[bytes, bool]:
        answer = self._link.call(Command.IN_DATA_EXCHANGE, _TARGET + data, 1 + MAX_COMMAND_BYTES, timeout_s)
        if not answer:
            raise GarbledAnswer("The reader did not say how the card answered.")
        _check(answer[0] & STATUS_MASK)
        return answer[1:], bool(answer[0] & MORE_FOLLOWS)

    def _watch(self) -> None:
        now_s = self._clock_s()
        if now_s - self._heard_s < WATCHDOG_S:
            return
        if version(self._link) != self._version:
            raise GarbledAnswer("The reader says another firmware version than before.")
        self._heard_s = now_s

    def _recover(self, fault: ReaderFault) -> None:
        """Climb the ladder; a fault that comes straight back starts one rung higher than the last."""
        self._selected = False
        first = Rung(min(self._failures, Rung.RESET))
        self._failures += 1
        try:
            self.recoveries[climb(self._link, first, fault, self._set_up)] += 1
        except ReaderLost:
            self._failures = 0  # the next poll climbs the whole ladder again
            raise

    def _set_up(self, found: FirmwareVersion) -> None:
        """What the chip forgets at power-on and other programs change. Raises ReaderFault."""
        self._link.call(Command.SET_PARAMETERS, _AUTOMATIC_RATS)
        self._link.call(Command.RF_CONFIGURATION, _RETRIES)
        self._version, self._heard_s = found, self._clock_s()
        self._selected = False


def _check(status: int) -> None:
    """Raise what the PN532's status byte about the card means (UM0701-02, 7.1)."""
    match status:
        case Status.OK:
            return
        case _ if status in _CARD_LEFT:
            raise CardGone("The card left the reader, or stopped answering. Hold it still.")
        case Status.AUTHENTICATION:
            raise CardRefused("The card refused the key.")
        case Status.FORMAT:
            raise CardRefused("The card refused the command.")
        case _:
            raise CardGarbled(f"The card's answer was damaged (PN532 status {status:02X}). Present it again.")
