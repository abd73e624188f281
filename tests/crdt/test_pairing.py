"""Pairing: only the code, on the right TLS connection, opens the other side's message (invariant 8)."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.errors import InputRefused, Malformed, MisuseError, TooLarge, WrongCode
from crdt.pairing import ALPHABET, MAX_SEALED_BYTES, HubPairing, PairingCode, TerminalPairing

SPKI = b"s" * 32
CODE = PairingCode.parse("4-7K2M9QX")
REQUEST = {"public_key": "ab" * 32, "csr": "-----BEGIN", "name": "bus 12, front door", "terminal": ""}
RESPONSE = {"certificate": "cd" * 100}


def entropy(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes  # noqa: S311  # a fixed seed, no secret


def sides(
    terminal_code: PairingCode = CODE, terminal_spki: bytes = SPKI
) -> tuple[TerminalPairing, HubPairing, bytes, bytes]:
    """Both sides after SPAKE2, and the two messages."""
    terminal = TerminalPairing(terminal_code, terminal_spki, entropy(1))
    hub = HubPairing(CODE, SPKI, entropy(2))
    first = terminal.start()
    return terminal, hub, first, hub.answer(first)


def test_the_right_code_carries_a_request_and_a_response() -> None:
    terminal, hub, first, second = sides()
    assert len(first) == len(second) == 33
    assert hub.open_request(terminal.seal_request(second, REQUEST)) == REQUEST
    assert terminal.open_response(hub.seal_response(RESPONSE)) == RESPONSE


@pytest.mark.parametrize(
    ("code", "spki"),
    [
        pytest.param("4-7K2M9QY", SPKI, id="another secret"),
        pytest.param("5-7K2M9QX", SPKI, id="another nameplate"),
        pytest.param("4-7K2M9QX", b"m" * 32, id="another TLS key: somebody in the middle"),
    ],
)
def test_a_wrong_code_or_another_tls_key_is_told_apart_from_garbage(code: str, spki: bytes) -> None:
    terminal, hub, _, second = sides(PairingCode.parse(code), spki)
    sealed = terminal.seal_request(second, REQUEST)
    with pytest.raises(WrongCode):
        hub.open_request(sealed)
    with pytest.raises(WrongCode):
        terminal.open_response(hub.seal_response(RESPONSE))


def test_every_truncation_and_flipped_bit_of_a_sealed_message_is_refused() -> None:
    terminal, hub, _, second = sides()
    sealed = terminal.seal_request(second, {"name": "bus"})
    changed = [sealed[:end] for end in range(len(sealed))]
    changed += [
        bytes(byte ^ (1 << bit % 8) if at == bit // 8 else byte for at, byte in enumerate(sealed))
        for bit in range(len(sealed) * 8)
    ]
    for each in changed:
        with pytest.raises(WrongCode):
            hub.open_request(each)
    with pytest.raises(WrongCode):
        terminal.open_response(sealed)  # a request sent back is no response
    with pytest.raises(TooLarge):
        hub.open_request(bytes(MAX_SEALED_BYTES + 1))


@settings(max_examples=25)
@given(st.one_of(st.binary(max_size=40), st.binary(min_size=32, max_size=32).map(lambda data: b"A" + data)))
def test_random_first_messages_are_malformed_or_end_in_a_wrong_code(data: bytes) -> None:
    """Points off the curve, of small order, the wrong side, the wrong length: a typed refusal."""
    hub = HubPairing(CODE, SPKI, entropy(2))
    try:
        hub.answer(data)
    except Malformed:
        return
    with pytest.raises(WrongCode):
        hub.open_request(b"anything")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"A",
        b"A" + bytes(32),
        b"A" + b"\1" + bytes(31),
        b"A" + b"\xff" * 32,
        b"B" + b"\x58" + b"\x66" * 31,
        b"A" * 10_000,
    ],
)
def test_bad_points_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        HubPairing(CODE, SPKI, entropy(2)).answer(data)


def test_a_reflected_message_is_malformed() -> None:
    terminal = TerminalPairing(CODE, SPKI, entropy(1))
    with pytest.raises(Malformed):
        terminal.seal_request(terminal.start(), REQUEST)


@pytest.mark.parametrize("values", ['["a"]', '{"a": 1}', "{", "3"])
def test_a_sealed_message_that_is_no_map_of_texts_is_malformed(
    values: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a peer that knows the code and has a bug."""
    terminal, hub, _, second = sides()
    monkeypatch.setattr("crdt.pairing.json.dumps", lambda _: values)
    sealed = terminal.seal_request(second, REQUEST)
    with pytest.raises(Malformed):
        hub.open_request(sealed)


@pytest.mark.parametrize("typed", ["4-7K2M9QX", "4-7k2m9qx", " 4 - 7K2 M9QX ", "04-7K2M9QX", "4-7K2M9QX\n"])
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    assert PairingCode.parse(typed) == CODE


def test_letters_that_look_like_digits_are_those_digits() -> None:
    assert PairingCode.parse("1-oOiIlL2") == PairingCode(1, "0011112")


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "4",
        "4-",
        "47K2M9QX",
        "4-7K2M9Q",
        "4-7K2M9QXX",
        "0-7K2M9QX",
        "12345-7K2M9QX",
        "4-7K2M9QU",
        "4-" + "7" * 9999,
    ],
)
def test_what_is_no_code_is_malformed(typed: str) -> None:
    with pytest.raises(Malformed):
        PairingCode.parse(typed)


@given(st.integers(1, 9999), st.integers(0, 2**32))
def test_a_new_code_reads_as_printed_and_has_35_bits(nameplate: int, seed: int) -> None:
    code = PairingCode.new(nameplate, entropy(seed))
    assert PairingCode.parse(str(code)) == code
    assert len(code.secret) == 7
    assert set(code.secret) <= set(ALPHABET)
    assert len(ALPHABET) == 32


def test_steps_out_of_order_are_our_own_mistake() -> None:
    with pytest.raises(MisuseError):
        TerminalPairing(CODE, SPKI, entropy(1)).open_response(b"")
    with pytest.raises(MisuseError):
        HubPairing(CODE, SPKI, entropy(1)).open_request(b"")
    with pytest.raises(MisuseError):
        PairingCode.new(0, entropy(1))
    terminal, _, _, second = sides()
    with pytest.raises(MisuseError):
        terminal.seal_request(second, {"name": "x" * MAX_SEALED_BYTES})
    assert issubclass(WrongCode, InputRefused)
