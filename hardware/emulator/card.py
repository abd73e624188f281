"""An ISO/IEC 14443 type A card: anticollision and selection, then whatever its application does."""

from enum import Enum, auto
from typing import Protocol

from hardware.cards import PresentedCard
from hardware.emulator.air import (
    CASCADE_TAG,
    HLTA,
    NAK,
    RATS,
    REQA,
    SAK_INCOMPLETE,
    SAK_ISO_DEP,
    SELECT,
    WUPA,
    Air,
    with_crc,
    without_crc,
)
from hardware.emulator.classic import ClassicCard
from hardware.emulator.isodep import CardBlocks

_ANTICOLLISION = 0x20
_SELECT_ALL = 0x70


class Application(Protocol):
    """What a selected card does with the commands that are its own."""

    def answer(self, command: bytes) -> Air | None:
        """The answer to one command (CRC removed); None for silence, NAK for a refusal."""

    def forget(self) -> None:
        """The card lost its power or its selection."""


class ApduApplication(Protocol):
    """What an ISO 14443-4 card does with one APDU."""

    def apdu(self, command: bytes) -> bytes:
        """The response APDU."""


class NoFiles:
    """A card with nothing to read: every APDU is an unknown instruction."""

    def apdu(self, command: bytes) -> bytes:
        return b"\x6d\x00"


class Silent:
    """A card that can be selected and nothing else."""

    def answer(self, command: bytes) -> Air | None:
        return None

    def forget(self) -> None:
        pass


class _State(Enum):
    IDLE = auto()
    READY = auto()
    ACTIVE = auto()
    PROTOCOL = auto()


class Card:
    """The state machine of ISO/IEC 14443-3, section 6.3, with PROTOCOL for 14443-4."""

    def __init__(
        self, presented: PresentedCard, application: Application, files: ApduApplication | None = None
    ) -> None:
        self.presented = presented
        self._application = application
        self._levels = _cascade(presented.uid)
        self._blocks = CardBlocks(files or NoFiles())
        self._state = _State.IDLE
        self._halted = False
        self._level = 0

    def power_off(self) -> None:
        self._fall_back(halted=False)

    def receive(self, frame: Air) -> Air | None:
        if frame.last_bits == 7 and len(frame.data) == 1:
            return self._short(frame.data[0])
        match self._state:
            case _State.READY:
                return self._collide(frame)
            case _State.ACTIVE | _State.PROTOCOL:
                data = without_crc(frame)
                return self._command(data) if data else None
            case _:
                return None

    def authenticate(self, code: int, block: int, key: bytes, uid: bytes) -> bool | None:
        """Whether a Classic card takes a key, which never goes over the air in clear; None: it is deaf."""
        if self._state is not _State.ACTIVE or not isinstance(self._application, ClassicCard):
            return None
        right = self._application.authenticate(code, block, key, uid)
        if not right:
            self._fall_back(self._halted)
        return right

    def _short(self, code: int) -> Air | None:
        if self._state is _State.IDLE and (code == WUPA or (code == REQA and not self._halted)):
            self._state, self._level = _State.READY, 0
            return Air(self.presented.atqa[::-1])
        if self._state is not _State.PROTOCOL:
            self._fall_back(self._halted)
        return None

    def _collide(self, frame: Air) -> Air | None:
        """Anticollision and selection at the present cascade level."""
        uid = self._levels[self._level]
        known = uid + bytes((uid[0] ^ uid[1] ^ uid[2] ^ uid[3],))
        if frame.data[:2] == bytes((SELECT[self._level], _ANTICOLLISION)):
            return Air(known)
        if without_crc(frame) != bytes((SELECT[self._level], _SELECT_ALL)) + known:
            self._fall_back(self._halted)
            return None
        self._level += 1
        if self._level < len(self._levels):
            return with_crc(bytes((SAK_INCOMPLETE,)))
        self._state = _State.ACTIVE
        return with_crc(bytes((self.presented.sak,)))

    def _command(self, data: bytes) -> Air | None:
        if self._state is _State.PROTOCOL:
            return self._block(data)
        if data == HLTA:
            self._fall_back(halted=True)
            return None
        if data[0] == RATS and self.presented.sak & SAK_ISO_DEP and self.presented.ats:
            self._state = _State.PROTOCOL
            self._blocks.start(data)
            return with_crc(self.presented.ats)
        answer = self._application.answer(data)
        if answer is None or answer == NAK:
            self._fall_back(self._halted)
        return answer

    def _block(self, data: bytes) -> Air | None:
        answer = self._blocks.answer(data)
        if self._blocks.deselected:
            self._fall_back(halted=True)
        return None if answer is None else with_crc(answer)

    def _fall_back(self, halted: bool) -> None:
        self._state, self._halted = _State.IDLE, halted
        self._application.forget()


def _cascade(uid: bytes) -> list[bytes]:
    """The four bytes that each cascade level tells."""
    levels = []
    while len(uid) > 4:
        levels.append(bytes((CASCADE_TAG,)) + uid[:3])
        uid = uid[3:]
    return [*levels, uid]
