"""Mutual TLS pinned to the fleet's root: who is let through and who is not, whatever the clock says."""

import asyncio
import hashlib
import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from crdt.tlsnames import HUB_TLS_NAME
from edge.identity import Identity, new_keys
from edge.tls import client_context, spki_sha256, stranger_context
from tests.edge.authority import Fleet, server_context

FLEET, OTHER = Fleet(1), Fleet(2)


async def made(identity: Identity) -> ssl.SSLContext:
    """As the uplink does it: OpenSSL reads the key through a file, so off the event loop."""
    return await asyncio.to_thread(client_context, identity)


async def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = HUB_TLS_NAME) -> bytes | None:
    """One real connection over loopback to who has this name; the client certificate (DER) the server saw."""
    seen: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("ssl_object").getpeercert(True))
        writer.write(b"!")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server) as listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        try:
            assert await reader.read() == b"!"
        finally:
            writer.close()
            await writer.wait_closed()
    return await seen


async def test_the_fleets_hub_is_accepted_and_sees_the_terminals_certificate(tmp_path: Path) -> None:
    identity = FLEET.enrol()
    seen = await handshake(FLEET.server_context(tmp_path), await made(identity))
    assert seen == ssl.PEM_cert_to_DER_cert(identity.tls_certificate_pem)


async def test_a_certificate_out_of_its_dates_is_accepted(tmp_path: Path) -> None:
    """A Pi that believes it is 1970, or 2100, still reaches its hub (X509_V_FLAG_NO_CHECK_TIME)."""
    await handshake(FLEET.server_context(tmp_path, expired=True), await made(FLEET.enrol()))


async def test_another_fleets_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(OTHER.server_context(tmp_path), await made(FLEET.enrol()))


async def test_a_stolen_terminals_certificate_cannot_play_the_hub(tmp_path: Path) -> None:
    """Every terminal has a server's certificate of the same root, for peers; it has not the hub's name."""
    thief = FLEET.enrol(new_keys(os.urandom))
    server = server_context(tmp_path, thief.tls_certificate_pem, thief.keys.tls_key_pem, thief.tls_root_pem)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await handshake(server, await made(FLEET.enrol()))


async def test_no_key_is_left_in_an_open_file(tmp_path: Path) -> None:
    """The key goes to OpenSSL through memory; the leak checks around every test see an open descriptor."""
    await made(FLEET.enrol())


async def test_pairing_takes_any_server_and_tells_its_key(tmp_path: Path) -> None:
    seen: list[bytes] = []
    assert await handshake(OTHER.server_context(tmp_path), stranger_context(seen.append)) is None
    key: ec.EllipticCurvePublicKey = OTHER.hub_tls_key.public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert seen == [hashlib.sha256(der).digest()]


async def test_the_witness_can_end_the_connection(tmp_path: Path) -> None:
    def object_to(_spki: bytes) -> None:
        raise ssl.SSLError("not you")

    with pytest.raises(ssl.SSLError, match="not you"):
        await handshake(OTHER.server_context(tmp_path), stranger_context(object_to))


@pytest.mark.parametrize("garbage", [b"", b"x", os.urandom(300)])
def test_a_certificate_that_is_none_is_an_ssl_error(garbage: bytes) -> None:
    with pytest.raises(ssl.SSLError):
        spki_sha256(garbage)
