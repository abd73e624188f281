"""A card as the reader saw it, and whether its number may stand for a person's money."""

from dataclasses import dataclass

from hardware.errors import CardGarbled

CASCADE_TAG = 0x88
RANDOM_UID = 0x08
UID_LENGTHS = (4, 7, 10)
"""ISO/IEC 14443-3, 6.5.4: single, double and triple size."""

_UID_INCOMPLETE = 0x04
"""SAK bit: the card has more of its UID to tell."""


@dataclass(frozen=True, slots=True)
class PresentedCard:
    """What an ISO 14443-A card says when it is activated. Nothing of it is proof of anything."""

    uid: bytes
    """4, 7 or 10 bytes, without cascade tags."""
    atqa: bytes
    """2 bytes in the PN532's order: 00 44 for an NTAG."""
    sak: int
    ats: bytes = b""
    """As the card sent it, its own length byte first; empty for cards that do not speak ISO 14443-4."""

    @property
    def uid_is_random(self) -> bool:
        """Phones and some cards make up a new UID each time; such a UID starts with 08."""
        return len(self.uid) == 4 and self.uid[0] == RANDOM_UID

    def __str__(self) -> str:
        return self.uid.hex(" ").upper() or "no UID"


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why this card's number is no identity; `reason` is a sentence for a person."""

    reason: str


def identify(presented: PresentedCard) -> bytes | Unusable:
    """The card's UID, where it can name an account.

    Source: ISO/IEC 14443-3, 6.5.4. UIDs whose first byte ends in F are fixed but not unique in the world;
    they are accepted, as most single-size cards sold today have one.
    """
    uid = presented.uid
    if len(uid) not in UID_LENGTHS:
        return Unusable(f"A card number has 4, 7 or 10 bytes; this card sent {len(uid)}.")
    if presented.sak & _UID_INCOMPLETE:
        return Unusable("The card did not tell its whole number. Present it again.")
    if presented.uid_is_random:
        return Unusable("This card or phone makes up a new number each time, so it cannot carry a balance.")
    if CASCADE_TAG in (uid[0], uid[len(uid) - 4]):
        return Unusable("The card's number has a cascade tag where none may be: it is damaged or forged.")
    if len(set(uid)) == 1 and uid[0] in (0x00, 0xFF):
        return Unusable("The card has a blank number: it is damaged or was never programmed.")
    return uid


def parse_target(answer: bytes) -> PresentedCard | None:
    """The card in InListPassiveTarget's answer for 106 kbps type A, or None when it found none.

    Layout (UM0701-02, 7.3.5): NbTg, then Tg, SENS_RES (2), SEL_RES, length, UID, and for ISO 14443-4 cards
    the ATS, whose first byte is its length. Raises CardGarbled on anything else.
    """
    if answer[:1] == b"\x00":
        return None
    if len(answer) < 6 or answer[0] != 1:
        raise CardGarbled("The reader reports a card without saying which. Present one card alone.")
    end = 6 + answer[5]
    uid, ats = answer[6:end], answer[end:]
    if len(answer) < end:
        raise CardGarbled("The card's number is cut short. Present it again.")
    if ats and ats[0] != len(ats):
        raise CardGarbled("The card's answer to select has a wrong length. Present it again.")
    return PresentedCard(uid, answer[2:4], answer[4], ats)
