"""The fleet's certificates: browsers and terminals accept the hub's, the hub only its own terminals'."""

import asyncio
import contextlib
import datetime
import hashlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crdt.certificate import Limits, Role
from crdt.facts import Kind, ReplicaId, TerminalId
from crdt.signing import SigningKey
from crdt.tlsnames import HUB_TLS_NAME, replica_tls_name, tls_identity
from hub.authority import Authority, new_secrets, serial_of
from hub.errors import RequestRefused
from tests.hub.tls import NOW, TlsKey, client_context, load_chain, new_tls_key, server_context

TERMINAL = TerminalId(bytes(range(16)))
REPLICA = ReplicaId(bytes(range(16, 32)))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(new_secrets())


@pytest.fixture(scope="module")
def key() -> TlsKey:
    return new_tls_key()


async def greet(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> bytes:
    """Connect over TLS; what the server saw of the client's certificate (DER, empty for none)."""
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("ssl_object").getpeercert(True) or b"")
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async with await asyncio.start_server(on_connect, "127.0.0.1", 0, ssl=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=host)
        try:
            # In TLS 1.3 the client hears of its refused certificate with the first read, if at all.
            await reader.read()
            if not seen.done():
                raise ConnectionError("the server hung up after the handshake")
            return seen.result()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_client_that_trusts_the_root_accepts_the_hub_by_name_and_address(
    authority: Authority, host: str
) -> None:
    server = await asyncio.to_thread(server_context, authority)
    client = await asyncio.to_thread(client_context, authority.root_pem)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert await greet(server, client, host) == b""


async def test_a_terminals_certificate_arrives_with_its_serial(authority: Authority, key: TlsKey) -> None:
    issued = authority.client_certificate(key.csr_pem, TERMINAL, REPLICA)
    server = await asyncio.to_thread(server_context, authority)
    client = await asyncio.to_thread(client_context, authority.root_pem, key.key_pem, issued.pem)
    assert serial_of(await greet(server, client, "localhost")) == issued.serial


async def test_another_fleets_terminal_is_refused_by_tls(authority: Authority, key: TlsKey) -> None:
    foreign = Authority(new_secrets()).client_certificate(key.csr_pem, TERMINAL, REPLICA)
    server = await asyncio.to_thread(server_context, authority)
    client = await asyncio.to_thread(client_context, authority.root_pem, key.key_pem, foreign.pem)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await greet(server, client, "localhost")


async def test_a_terminals_certificate_cannot_play_the_hub_or_another_terminal(
    authority: Authority, key: TlsKey
) -> None:
    """It is good for a server, because terminals answer each other: under its own names."""
    issued = authority.client_certificate(key.csr_pem, TERMINAL, REPLICA)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(load_chain, server, key.key_pem, issued.pem)
    client = await asyncio.to_thread(client_context, authority.root_pem)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert await greet(server, client, replica_tls_name(REPLICA)) == b""
    other = replica_tls_name(ReplicaId(bytes(16)))
    for name in (HUB_TLS_NAME, other, "localhost", "127.0.0.1"):
        with pytest.raises(ssl.SSLCertVerificationError):
            await greet(server, client, name)


async def test_the_hub_is_known_by_its_name_wherever_it_is(authority: Authority) -> None:
    server = await asyncio.to_thread(server_context, authority)
    client = await asyncio.to_thread(client_context, authority.root_pem)
    assert await greet(server, client, HUB_TLS_NAME) == b""


def test_a_terminals_certificate_says_which_terminal_and_which_identity(
    authority: Authority, key: TlsKey
) -> None:
    pem = authority.client_certificate(key.csr_pem, TERMINAL, REPLICA).pem
    extensions = x509.load_pem_x509_certificate(pem.encode()).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tls_identity(names.get_values_for_type(x509.DNSName)) == (TERMINAL, REPLICA)


def test_the_hubs_certificate_is_for_browsers_and_for_clocks_that_are_wrong(authority: Authority) -> None:
    pem = authority.server_certificate(["depot", "depot.local"], ["192.0.2.7", "::1"])
    certificate = x509.load_pem_x509_certificate(pem)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HUB_TLS_NAME, "depot", "depot.local"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "::1"]
    assert certificate.not_valid_before_utc.year == 1970
    assert certificate.not_valid_after_utc - NOW > datetime.timedelta(days=3650)


def test_a_new_server_certificate_keeps_the_key_that_pairing_is_bound_to(authority: Authority) -> None:
    for names in (["a"], ["b"]):
        key = x509.load_pem_x509_certificate(authority.server_certificate(names, [])).public_key()
        info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert hashlib.sha256(info).digest() == authority.hub_spki_sha256


def test_a_terminals_certificate_ends_by_the_registry_and_not_by_a_date(
    authority: Authority, key: TlsKey
) -> None:
    """Nothing renews it: a date would stop every terminal of a depot within days of one another."""
    issued = authority.client_certificate(key.csr_pem, TERMINAL, REPLICA)
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    assert certificate.not_valid_before_utc.year == 1970
    assert certificate.not_valid_after_utc - NOW > datetime.timedelta(days=20 * 365)
    assert certificate.subject.rfc4514_string() == f"CN={TERMINAL.hex()}"


@pytest.mark.parametrize(
    "csr",
    [
        "",
        "no PEM at all",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "x" * 100_000,
        new_tls_key(ec.SECP384R1()).csr_pem,
    ],
)
def test_an_unsound_certificate_request_is_refused(authority: Authority, csr: str) -> None:
    with pytest.raises(RequestRefused, match="P-256"):
        authority.client_certificate(csr, TERMINAL, REPLICA)


def test_a_request_signed_by_another_key_is_refused(authority: Authority, key: TlsKey) -> None:
    der = x509.load_pem_x509_csr(key.csr_pem.encode()).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(der[:-1] + bytes([der[-1] ^ 1]))
    with pytest.raises(RequestRefused):
        authority.client_certificate(
            forged.public_bytes(serialization.Encoding.PEM).decode(), TERMINAL, REPLICA
        )


def test_author_certificates_bind_role_and_limits(authority: Authority) -> None:
    author = SigningKey(b"t" * 32)
    limits = Limits(frozenset({Kind.FARE}), 0, 500)
    issued = authority.terminal_certificate(TERMINAL, "Bus 12", author.public_key, limits)
    issued.verify(authority.fleet_key.public_key)
    assert (issued.role, issued.terminal, issued.permits(Kind.FARE, -500)) == (Role.TERMINAL, TERMINAL, True)
    assert not issued.permits(Kind.FARE, -501)
    assert not issued.permits(Kind.TOPUP, 1)
    hub = authority.hub_certificate.verify(authority.fleet_key.public_key)
    assert hub.role is Role.HUB
    assert all(hub.permits(kind, 2**40) for kind in Kind)
