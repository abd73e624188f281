"""Pairing with a hub by a short one-time code, over a network nobody trusts (protocol: crdt.pairing).

Nothing is known about the hub yet, so its TLS certificate cannot be checked. Its key's hash goes into the
derivation instead: who does not know the code cannot answer, and who stands between has another key.
"""

import asyncio
import base64
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import aiohttp

from crdt.certificate import AuthorCertificate
from crdt.errors import InputRefused, RefusalCode, WrongCode
from crdt.facts import TerminalId
from crdt.pairing import PairingCode, TerminalPairing
from crdt.protocol import IDENTIFY, PAIR_FINISH, PAIR_START
from edge.addresses import HubAddress
from edge.errors import (
    AnswerRefused,
    CodeRefused,
    HubDistrusted,
    HubImpostor,
    HubRefused,
    IdentityError,
    PairingRefused,
)
from edge.https import Limits, object_in, open_http, small_body, translated
from edge.identity import Keys, checked
from edge.promised import Promised, former_in
from edge.tls import stranger_context

T = TypeVar("T")

CODE_ERRORS = frozenset({"wrong_code", "code_gone", "no_code"})
"""The hub's words for a code that is mistyped, used up or too old."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a terminal was whose storage was put back."""

    certificate: AuthorCertificate
    """Of the identity that it was. A hub that was put back may have forgotten that it ever gave it."""
    promised: bytes = b""
    """The certificate of an identity that a hub has promised it since, which that may have forgotten."""


class _Options(TypedDict):
    proxy: str | None
    allow_redirects: bool


class OneKey:
    """Remembers the TLS key (SPKI SHA-256) of the first connection and ends any later one with another."""

    def __init__(self) -> None:
        self.spki_sha256 = b""

    def __call__(self, spki_sha256: bytes) -> None:
        if self.spki_sha256 not in (b"", spki_sha256):
            raise ssl.SSLError("another TLS key than a moment ago")
        self.spki_sha256 = spki_sha256


class Pairing:
    """Pairs this terminal with the hub at one address. One object is one try."""

    def __init__(
        self, address: HubAddress, limits: Limits, proxy: str, entropy: Callable[[int], bytes]
    ) -> None:
        self._address = address
        self._limits = limits
        self._proxy = proxy or None
        self._entropy = entropy
        self._seen = OneKey()

    async def run(
        self,
        code: PairingCode,
        keys: Keys,
        name: str,
        terminal: TerminalId | None,
        restored: Restored | None = None,
    ) -> Promised:
        """The identity the hub gives to `keys` under the name. `terminal`: its id, where it had one before.

        `restored`: what a storage that was put back was until now; the hub ends it. Raises CodeRefused,
        HubImpostor, PairingRefused or HubUnreachable; nothing is stored here.
        """
        async with open_http(stranger_context(self._seen), self._limits) as http:
            try:
                return await self._run(http, code, keys, name, terminal, restored)
            except HubDistrusted as error:
                raise HubImpostor(
                    f"The computer at {self._address} changed its TLS key while pairing: it is not one hub."
                    " Check hub.address and the network, and ask for a new code."
                ) from error
            except HubRefused as error:
                if error.code in CODE_ERRORS:
                    raise CodeRefused(
                        f"The hub does not accept the code {code}: mistyped, used, or too old."
                        " Ask for a new one (farebox-hub invite) and type it as shown."
                    ) from error
                raise PairingRefused(str(error)) from error
            except AnswerRefused as error:
                raise PairingRefused(str(error)) from error

    async def _run(
        self,
        http: aiohttp.ClientSession,
        code: PairingCode,
        keys: Keys,
        name: str,
        terminal: TerminalId | None,
        restored: Restored | None,
    ) -> Promised:
        # The connection has to exist before the first message can be made: its key goes in.
        await self._knock(http)
        pairing = TerminalPairing(code, self._seen.spki_sha256, self._entropy)
        start = {"nameplate": str(code.nameplate), "message": _b64(await asyncio.to_thread(pairing.start))}
        answer = await self._post(http, PAIR_START, start)
        request = {
            "public_key": keys.signing.public_key.hex(),
            "csr": await asyncio.to_thread(keys.certificate_request, name),
            "name": name,
            "terminal": "" if terminal is None else terminal.hex(),
            "restored": "" if restored is None else restored.certificate.replica.hex(),
            "certificate": "" if restored is None else restored.certificate.encode().hex(),
            "forgotten": "" if restored is None else restored.promised.hex(),
        }
        sealed = await self._protocol(pairing.seal_request, _unb64(answer, "message"), request)
        finish = {"session": _text(answer, "session"), "request": _b64(sealed)}
        answer = await self._post(http, PAIR_FINISH, finish)
        given = await self._protocol(pairing.open_response, _unb64(answer, "response"))
        try:
            identity = await asyncio.to_thread(checked, keys, dict(given))
        except IdentityError as error:
            raise PairingRefused(f"The hub's certificates cannot be used. {error}") from error
        return Promised(identity, former_in(given.get("former", "")))

    async def _knock(self, http: aiohttp.ClientSession) -> None:
        """Connect, and see the TLS key; what the hub says to this request does not matter."""
        async with (
            translated(self._address),
            http.get(self._address.url(IDENTIFY), **self._options()) as response,
        ):
            await small_body(response)

    async def _post(
        self, http: aiohttp.ClientSession, path: str, body: Mapping[str, str]
    ) -> Mapping[str, object]:
        async with (
            translated(self._address),
            http.post(self._address.url(path), json=body, **self._options()) as response,
        ):
            return await object_in(response)

    async def _protocol(self, step: Callable[..., T], *arguments: object) -> T:
        """One step of SPAKE2, off the event loop: each takes milliseconds of arithmetic."""
        try:
            return await asyncio.to_thread(step, *arguments)
        except WrongCode as error:
            raise HubImpostor(
                f"The computer at {self._address} does not know the code: it is not your hub, or the code is"
                " mistyped. Check hub.address, and ask for a new code."
            ) from error
        except InputRefused as error:
            raise AnswerRefused(error.code, str(error)) from error

    def _options(self) -> _Options:
        return {"proxy": self._proxy, "allow_redirects": False}


def parse_code(text: str) -> PairingCode:
    """The code as typed, forgiving about case, look-alikes and spaces. Raises CodeRefused."""
    try:
        return PairingCode.parse(text)
    except InputRefused as error:
        raise CodeRefused(f"This is no pairing code: {error}.") from error


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _text(answer: Mapping[str, object], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise AnswerRefused(RefusalCode.MALFORMED, f"{name} is missing")
    return value


def _unb64(answer: Mapping[str, object], name: str) -> bytes:
    try:
        return base64.b64decode(_text(answer, name), validate=True)
    except ValueError as error:
        raise AnswerRefused(RefusalCode.MALFORMED, f"{name} is not base64") from error
