"""Pairing: codes as people type them, SPAKE2 messages, and sealed messages with anything sealed in them."""

import json
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from crdt.errors import InputRefused
from crdt.pairing import HubPairing, PairingCode, TerminalPairing
from tests.crdt.fuzz.mutate import Mutator
from tests.crdt.fuzz.target import Target

_CODE: Final = PairingCode.parse("4-7K2M9QX")
_SPKI: Final = b"\x09" * 32
_TERMINAL: Final = TerminalPairing(_CODE, _SPKI, lambda count: b"\x11" * count)
_HUB: Final = HubPairing(_CODE, _SPKI, lambda count: b"\x22" * count)
_FIRST: Final = _TERMINAL.start()
_SECOND: Final = _HUB.answer(_FIRST)
_TERMINAL.seal_request(_SECOND, {})
_REQUEST: Final = json.dumps({"public_key": "00" * 32, "name": "bus 12", "terminal": "ü"}).encode()


def mutant_code(mutator: Mutator) -> bytes:
    """What somebody may type."""
    return mutator.mutated(
        mutator.pick((b"4-7K2M9QX", b" 12 - 7k2m 9qx", b"9999-OOOOIIL", "٤-7K2M9QX".encode()))
    )


def check_code(typed: bytes) -> bool:
    """Refused, or a code that reads back from how it is shown."""
    try:
        code = PairingCode.parse(typed.decode(errors="surrogateescape"))
    except InputRefused:
        return False
    assert PairingCode.parse(str(code)) == code
    assert code.password().isascii()
    return True


def mutant_message(mutator: Mutator) -> bytes:
    """A side, and a SPAKE2 message for it: now and then a point that is in no good group."""
    points = (
        b"\x00" * 32,
        b"\x01" + b"\x00" * 31,
        b"\xff" * 32,
        bytes(31) + b"\x80",
        mutator.source.randbytes(32),
    )
    side, good = mutator.pick(((b"A", _SECOND), (b"B", _FIRST)))
    message = good[:1] + mutator.pick(points) if mutator.chance(2) else mutator.mutated(good)
    return side + message


def check_message(message: bytes) -> bool:
    """Refused, or keys that open nothing: whoever sends it does not know the code."""
    side, point = message[:1], message[1:]
    try:
        if side == b"A":
            terminal = TerminalPairing(_CODE, _SPKI, lambda count: b"\x11" * count)
            terminal.start()
            terminal.seal_request(point, {})
        else:
            HubPairing(_CODE, _SPKI, lambda count: b"\x22" * count).answer(point)
    except InputRefused:
        return False
    return True


def mutant_sealed(mutator: Mutator) -> bytes:
    """A message sealed with the right key, of anything; or a damaged one."""
    keys = _HUB._keys  # an honest terminal's, which is not honest any more
    assert keys is not None
    plain = mutator.mutated(
        mutator.pick((_REQUEST, b"{}", b"[" * 900, b'{"a":{"b":1}}', b'{"a":' + b"9" * 5000 + b"}"))
    )
    sealed = ChaCha20Poly1305(keys.request).encrypt(bytes(12), plain, b"farebox pair v1")
    return mutator.mutated(sealed) if mutator.chance(4) else sealed


def check_sealed(sealed: bytes) -> bool:
    """Refused, or a map of texts."""
    try:
        values = _HUB.open_request(sealed)
    except InputRefused:
        return False
    assert all(isinstance(each, str) for pair in values.items() for each in pair)
    return True


TARGETS: Final = [
    Target("pairing-code", mutant_code, check_code, weight=2),
    Target("pairing-message", mutant_message, check_message),
    Target("pairing-sealed", mutant_sealed, check_sealed, weight=4),
]
