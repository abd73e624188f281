"""Card ids as people type them and see them."""

from crdt.facts import MAX_CARD_BYTES, MIN_CARD_BYTES, CardId
from hub.errors import RequestRefused

_SEPARATORS = str.maketrans("", "", " :-\t")


def parse_card(text: str) -> CardId:
    """A card id from what a person typed: hex in any case, spaces, colons and dashes allowed."""
    plain = text.translate(_SEPARATORS)
    try:
        card = bytes.fromhex(plain) if plain.isascii() and len(plain) <= 2 * MAX_CARD_BYTES else b""
    except ValueError:
        card = b""
    if not MIN_CARD_BYTES <= len(card) <= MAX_CARD_BYTES:
        raise RequestRefused(
            "card", f"{text[:60]!r} is not a card id: 4 to 16 bytes in hex, such as 04A1B2C3D4E5F6."
        )
    return CardId(card)


def card_text(card: CardId) -> str:
    """A card id as people see it: upper-case hex."""
    return card.hex().upper()
