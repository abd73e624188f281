"""What the PN532 does with each command (NXP UM0701-02, section 7): parameters in, answer out.

An answer that has to wait is a `Search`; one that never comes by itself is `FOREVER`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hardware.commands import BAUD_RATES, MORE_FOLLOWS, Command, Status
from hardware.emulator.air import SAK_ISO_DEP
from hardware.emulator.radio import Radio, Target

FIRMWARE_VERSION: Final = bytes.fromhex("32010607")

_TRY_S: Final = 0.005
"""One activation attempt that nobody answers."""
_AUTO_POLL_UNIT_S: Final = 0.15
_FOREVER: Final = 0xFF
_MAX_ANSWER_BYTES: Final = 262
_MAX_CHAIN_BYTES: Final = 4096

_OK: Final = bytes((Status.OK,))
_RF_ITEMS: Final = {0x01: 1, 0x02: 3, 0x04: 1, 0x05: 3, 0x0A: 11, 0x0B: 8, 0x0C: 3, 0x0D: 9}
"""RFConfiguration's items and how long their data is."""
_CLASSIC_AUTHENTICATION: Final = (0x60, 0x61)
_AUTHENTICATION_BYTES: Final = 12
"""Code, block, key, and the last four bytes of the UID."""
_TWO_PHASE_WRITE: Final = 0xA0


class SyntaxFault(Exception):
    """The chip answers such a command with an error frame."""


@dataclass(frozen=True, slots=True)
class Search:
    """A command that ends when a card is found, or after `limit_s` (None: never) with `nothing`."""

    find: Callable[[], bytes | None]
    limit_s: float | None
    nothing: bytes


FOREVER: Final = Search(lambda: None, None, b"")

Answer = bytes | Search


class Firmware:
    """The commands and what they remember. No I/O and no clock."""

    def __init__(self) -> None:
        self.radio = Radio()
        self.new_baud: int | None = None
        """What SetSerialBaudRate asked for; holds once the host has acknowledged the answer."""
        self.asleep = False
        self._tries = _FOREVER
        self._automatic_rats = True
        self._commands: dict[int, Callable[[bytes], Answer]] = {
            Command.DIAGNOSE: self._diagnose,
            Command.GET_FIRMWARE_VERSION: lambda _: FIRMWARE_VERSION,
            Command.GET_GENERAL_STATUS: self._general_status,
            Command.READ_REGISTER: self._read_register,
            Command.WRITE_REGISTER: self._write_register,
            Command.READ_GPIO: lambda _: b"\x3f\x06\x00",
            Command.WRITE_GPIO: lambda _: b"",
            Command.SET_SERIAL_BAUD_RATE: self._set_baud,
            Command.SET_PARAMETERS: self._set_parameters,
            Command.SAM_CONFIGURATION: self._sam_configuration,
            Command.POWER_DOWN: self._power_down,
            Command.RF_CONFIGURATION: self._rf_configuration,
            Command.RF_REGULATION_TEST: lambda _: FOREVER,
            Command.IN_DATA_EXCHANGE: self._data_exchange,
            Command.IN_COMMUNICATE_THRU: lambda params: self.radio.thru(params),
            Command.IN_DESELECT: self._deselect,
            Command.IN_RELEASE: self._release,
            Command.IN_SELECT: self._select,
            Command.IN_LIST_PASSIVE_TARGET: self._list_passive_target,
            Command.IN_AUTO_POLL: self._auto_poll,
            Command.IN_PSL: lambda _: _OK,
            # There is no other NFC device around, neither to start with nor to answer to.
            Command.IN_ATR: lambda _: bytes((Status.TIMEOUT,)),
            Command.IN_JUMP_FOR_DEP: lambda _: bytes((Status.TIMEOUT,)),
            Command.IN_JUMP_FOR_PSL: lambda _: bytes((Status.TIMEOUT,)),
            Command.TG_INIT_AS_TARGET: lambda _: FOREVER,
            Command.TG_GET_TARGET_STATUS: lambda _: b"\x00\x00",
        }
        for command in (
            Command.TG_GET_DATA,
            Command.TG_GET_INITIATOR_COMMAND,
            Command.TG_SET_DATA,
            Command.TG_RESPONSE_TO_INITIATOR,
            Command.TG_SET_GENERAL_BYTES,
            Command.TG_SET_META_DATA,
        ):
            self._commands[command] = lambda _: bytes((Status.WRONG_CONTEXT,))

    def run(self, command: int, params: bytes) -> Answer:
        """Start one command. Raises SyntaxFault."""
        handler = self._commands.get(command)
        if handler is None:
            raise SyntaxFault(f"command {command:02X} is unknown")
        return handler(params)

    def _diagnose(self, params: bytes) -> Answer:
        match _at_least(params, 1)[0]:
            case 0x00:  # communication line: says back what it hears
                return params
            case 0x01 | 0x02 | 0x07:  # ROM, RAM, antenna
                return _OK
            case 0x04:  # polling of a FeliCa card: 128 failures of 128
                return b"\x80"
            case 0x05:
                return FOREVER
            case 0x06:
                return bytes((Status.OK if self.radio.card and self.radio.target else Status.TIMEOUT,))
        raise SyntaxFault("no such test")

    def _general_status(self, _params: bytes) -> bytes:
        targets = b"\x01\x01\x00\x00\x00" if self.radio.target else b"\x00"
        return bytes((0, self.radio.field_is_on)) + targets + b"\x80"

    def _read_register(self, params: bytes) -> bytes:
        addresses = _groups(params, 2)
        return bytes(self.radio.read(int.from_bytes(address, "big")) for address in addresses)

    def _write_register(self, params: bytes) -> bytes:
        for group in _groups(params, 3):
            self.radio.write(int.from_bytes(group[:2], "big"), group[2])
        return b""

    def _set_baud(self, params: bytes) -> bytes:
        index = _exactly(params, 1)[0]
        if index >= len(BAUD_RATES):
            raise SyntaxFault("no such baud rate")
        self.new_baud = BAUD_RATES[index]
        return b""

    def _set_parameters(self, params: bytes) -> bytes:
        self._automatic_rats = bool(_exactly(params, 1)[0] & 0x10)
        return b""

    def _sam_configuration(self, params: bytes) -> bytes:
        if not 1 <= len(params) <= 3 or not 1 <= params[0] <= 4:
            raise SyntaxFault("mode 1 to 4, time-out and IRQ are optional")
        return b""

    def _power_down(self, params: bytes) -> bytes:
        if not 1 <= len(params) <= 2:
            raise SyntaxFault("wake-up sources, and IRQ is optional")
        self.asleep = True
        self.radio.field(False)
        return _OK

    def _rf_configuration(self, params: bytes) -> bytes:
        item, data = _at_least(params, 1)[0], params[1:]
        if _RF_ITEMS.get(item) != len(data):
            raise SyntaxFault("no such item, or of another length")
        if item == 0x01:
            self.radio.field(bool(data[0] & 0x01))
        elif item == 0x05:
            self._tries = data[2]
        return b""

    def _list_passive_target(self, params: bytes) -> Answer:
        most, kind, wanted = _at_least(params, 2)[0], params[1], params[2:]
        if not 1 <= most <= 2 or kind > 4:
            raise SyntaxFault("one or two targets of type 0 to 4")

        def find() -> bytes | None:
            target = self.radio.activate(wanted, self._automatic_rats) if kind == 0 else None
            return None if target is None else b"\x01" + _target_data(target)

        limit_s = None if self._tries == _FOREVER else (self._tries + 1) * _TRY_S
        return Search(find, limit_s, b"\x00")

    def _auto_poll(self, params: bytes) -> Answer:
        polls, period, kinds = _at_least(params, 3)[0], params[1], params[2:]
        if not 1 <= period <= 0x0F or polls == 0:
            raise SyntaxFault("at least one poll, with a period of 1 to 15")

        def find() -> bytes | None:
            if not {0x00, 0x10, 0x20} & set(kinds):
                return None
            target = self.radio.activate(b"", rats=bool({0x00, 0x20} & set(kinds)))
            if target is None:
                return None
            found = 0x20 if target.seen.sak & SAK_ISO_DEP else 0x10
            if not {0x00, found} & set(kinds):
                return None
            data = _target_data(target)
            return bytes((1, found, len(data))) + data

        limit_s = None if polls == _FOREVER else polls * period * len(kinds) * _AUTO_POLL_UNIT_S
        return Search(find, limit_s, b"\x00")

    def _data_exchange(self, params: bytes) -> bytes:
        number, data = _at_least(params, 1)[0], params[1:]
        target = self._target(number)
        if target is None:
            return bytes((Status.WRONG_CONTEXT,))
        if target.incoming and not data:
            return _part(target)
        message = bytes(target.outgoing) + data
        target.outgoing.clear()
        if len(message) > _MAX_CHAIN_BYTES:
            return bytes((Status.BUFFER_TOO_SMALL,))
        if number & MORE_FOLLOWS:
            target.outgoing += message
            return _OK
        answer = self._ask(target, message)
        if isinstance(answer, Status):
            return bytes((answer,))
        target.incoming[:] = answer
        return _part(target)

    def _ask(self, target: Target, message: bytes) -> bytes | Status:
        card = self.radio.card
        if card and len(message) >= _AUTHENTICATION_BYTES and message[0] in _CLASSIC_AUTHENTICATION:
            right = card.authenticate(message[0], message[1], message[2:8], message[-4:])
            if right is not None:
                return b"" if right else Status.AUTHENTICATION
        if message[:1] == bytes((_TWO_PHASE_WRITE,)) and len(message) == 18 and target.blocks is None:
            first = self.radio.exchange(target, message[:2])
            return first if isinstance(first, Status) else self.radio.exchange(target, message[2:])
        return self.radio.exchange(target, message)

    def _deselect(self, params: bytes) -> bytes:
        _exactly(params, 1)
        self.radio.deselect()
        return _OK

    def _release(self, params: bytes) -> bytes:
        self._deselect(params)
        self.radio.target = None
        return _OK

    def _select(self, params: bytes) -> bytes:
        if self._target(_exactly(params, 1)[0]) is None:
            return bytes((Status.WRONG_CONTEXT,))
        return _OK if self.radio.activate(b"", self._automatic_rats) else bytes((Status.TIMEOUT,))

    def _target(self, number: int) -> Target | None:
        return self.radio.target if number & ~MORE_FOLLOWS == 1 else None


def _target_data(target: Target) -> bytes:
    seen = target.seen
    return b"\x01" + seen.atqa + bytes((seen.sak, len(seen.uid))) + seen.uid + seen.ats


def _part(target: Target) -> bytes:
    """The next part of the card's answer, with its status byte."""
    part = bytes(target.incoming[:_MAX_ANSWER_BYTES])
    del target.incoming[:_MAX_ANSWER_BYTES]
    return bytes((Status.OK | (MORE_FOLLOWS if target.incoming else 0),)) + part


def _exactly(params: bytes, length: int) -> bytes:
    if len(params) != length:
        raise SyntaxFault(f"{length} bytes of parameters")
    return params


def _at_least(params: bytes, length: int) -> bytes:
    if len(params) < length:
        raise SyntaxFault(f"at least {length} bytes of parameters")
    return params


def _groups(params: bytes, length: int) -> list[bytes]:
    if not params or len(params) % length:
        raise SyntaxFault(f"groups of {length} bytes")
    return [params[at : at + length] for at in range(0, len(params), length)]
