"""Pairing by a short one-time code over an untrusted network: SPAKE2 and two sealed messages. No I/O.

Terminal and hub both know the code, for ten minutes and a few tries. SPAKE2 (the PyPI package `spake2`, its
Ed25519 group) turns it into a key that nobody who listens or interposes can test guesses against. The hash of
the hub's TLS key goes into the derivation, so a man in the middle with another TLS key fails as well.

    terminal: start() -> 33 bytes              hub: answer(message) -> 33 bytes
    terminal: seal_request(message, dict)      hub: open_request(sealed) -> dict    WrongCode shows here
    hub: seal_response(dict)                   terminal: open_response(sealed) -> dict
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B

from crdt.errors import Malformed, MisuseError, TooLarge, WrongCode
from crdt.protocol import MAX_JSON_BYTES

Entropy = Callable[[int], bytes]  # so many random bytes: os.urandom, brought by the caller

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base32: no I, L, O, U
SECRET_LETTERS: Final = 7  # 35 bits
MAX_NAMEPLATE: Final = 9999
MAX_SEALED_BYTES: Final = MAX_JSON_BYTES // 2  # base64 inside of JSON, it still fits a pairing request
_INFO: Final = b"farebox pair v1"
_NONCE: Final = bytes(12)  # each key seals a single message
_READ_AS: Final = str.maketrans("OIL", "011")
_CODE: Final = re.compile(f"([0-9]{{1,4}})-([{ALPHABET}]{{{SECRET_LETTERS}}})")


@dataclass(frozen=True, slots=True)
class PairingCode:
    """A code as a person reads it out: the nameplate finds the invitation, the secret proves it."""

    nameplate: int
    secret: str

    @classmethod
    def new(cls, nameplate: int, entropy: Entropy) -> "PairingCode":
        """A fresh code for a free nameplate, 1 to MAX_NAMEPLATE."""
        if not 1 <= nameplate <= MAX_NAMEPLATE:
            raise MisuseError(f"a nameplate is a number from 1 to {MAX_NAMEPLATE}")
        return cls(nameplate, "".join(ALPHABET[byte & 31] for byte in entropy(SECRET_LETTERS)))

    @classmethod
    def parse(cls, text: str) -> "PairingCode":
        """The code somebody typed: in any case, O for 0, I or L for 1, with spaces. Raises Malformed."""
        plain = re.sub(r"\s", "", text[:64]).upper().translate(_READ_AS)
        match = _CODE.fullmatch(plain)
        if not match or not 1 <= int(match[1]) <= MAX_NAMEPLATE:
            raise Malformed(
                "a pairing code looks like 4-7K2M9QX: a number, a dash and seven letters or digits"
            )
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.nameplate}-{self.secret}"

    def password(self) -> bytes:
        """What SPAKE2 is given: the canonical code in ASCII."""
        return str(self).encode()


class TerminalPairing:
    """The terminal's side. One object is one try; `hub_spki_sha256` is of the TLS key it is connected to."""

    def __init__(self, code: PairingCode, hub_spki_sha256: bytes, entropy: Entropy) -> None:
        self._spake = SPAKE2_A(code.password(), idA=b"terminal", idB=b"hub", entropy_f=entropy)
        self._spki = hub_spki_sha256
        self._message = b""
        self._keys: _Keys | None = None

    def start(self) -> bytes:
        """The first message, 33 bytes, for the hub's `answer`. Call it once."""
        self._message = bytes(self._spake.start())
        return self._message

    def seal_request(self, hub_message: bytes, request: Mapping[str, str]) -> bytes:
        """The sealed request, for the hub's `open_request`. Raises Malformed on a garbled hub message."""
        shared = _finish(self._spake, hub_message)
        self._keys = _derive(shared, self._message, hub_message, self._spki)
        return _seal(self._keys.request, request)

    def open_response(self, sealed: bytes) -> dict[str, str]:
        """What the hub sealed. Raises WrongCode, Malformed or TooLarge."""
        if self._keys is None:
            raise MisuseError("a pairing's response comes after its request")
        return _open(self._keys.response, sealed)


class HubPairing:
    """The hub's side. One object is one try; `hub_spki_sha256` is of the hub's own TLS key."""

    def __init__(self, code: PairingCode, hub_spki_sha256: bytes, entropy: Entropy) -> None:
        self._spake = SPAKE2_B(code.password(), idA=b"terminal", idB=b"hub", entropy_f=entropy)
        self._spki = hub_spki_sha256
        self._keys: _Keys | None = None

    def answer(self, terminal_message: bytes) -> bytes:
        """The second message, 33 bytes. Raises Malformed when the first is garbage. Call it once."""
        message = bytes(self._spake.start())
        shared = _finish(self._spake, terminal_message)
        self._keys = _derive(shared, terminal_message, message, self._spki)
        return message

    def open_request(self, sealed: bytes) -> dict[str, str]:
        """What the terminal sealed. Raises WrongCode, Malformed or TooLarge."""
        return _open(self._known().request, sealed)

    def seal_response(self, response: Mapping[str, str]) -> bytes:
        """The sealed response, for the terminal's `open_response`."""
        return _seal(self._known().response, response)

    def _known(self) -> "_Keys":
        if self._keys is None:
            raise MisuseError("a pairing is answered before its request is opened")
        return self._keys


@dataclass(frozen=True, slots=True)
class _Keys:
    request: bytes
    response: bytes


def _finish(spake: SPAKE2_A | SPAKE2_B, message: bytes) -> bytes:
    try:
        return bytes(spake.finish(message))
    except (
        Exception
    ) as error:  # the package raises its own errors, ValueError and AssertionError for bad points
        raise Malformed("the pairing message is damaged") from error


def _derive(shared: bytes, terminal_message: bytes, hub_message: bytes, spki_sha256: bytes) -> _Keys:
    salt = hashlib.sha256(terminal_message + hub_message).digest()
    keys = HKDF(SHA256(), length=64, salt=salt, info=_INFO + spki_sha256).derive(shared)
    return _Keys(keys[:32], keys[32:])


def _seal(key: bytes, values: Mapping[str, str]) -> bytes:
    sealed = ChaCha20Poly1305(key).encrypt(_NONCE, json.dumps(dict(values)).encode(), _INFO)
    if len(sealed) > MAX_SEALED_BYTES:
        raise MisuseError(f"a pairing message has at most {MAX_SEALED_BYTES} bytes")
    return sealed


def _open(key: bytes, sealed: bytes) -> dict[str, str]:
    if len(sealed) > MAX_SEALED_BYTES:
        raise TooLarge(f"a pairing message has at most {MAX_SEALED_BYTES} bytes")
    try:
        values = json.loads(ChaCha20Poly1305(key).decrypt(_NONCE, sealed, _INFO))
    except InvalidTag:
        raise WrongCode("the pairing code is wrong, or somebody stands between terminal and hub") from None
    except (ValueError, RecursionError) as error:
        raise Malformed("the pairing message is not JSON") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise Malformed("the pairing message is not a map of texts")
    return values
