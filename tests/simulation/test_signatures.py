"""A simulated signature holds where a real one would, and nowhere else."""

from crdt import signing
from crdt.signing import SigningKey, verify
from tests.simulation.signatures import SimulatedKey, simulated_signatures

KEY = SimulatedKey(bytes(32))
OTHER = SimulatedKey(bytes([1]) * 32)
MESSAGE = b"message"


def test_it_is_the_keys_and_the_messages_alone() -> None:
    """Invariant 8: damaged, forged and foreign signatures are refused in a simulation too."""
    good = KEY.sign(MESSAGE)
    assert len(good) == signing.SIGNATURE_BYTES
    with simulated_signatures():
        assert verify(KEY.public_key, good, MESSAGE)
        assert not verify(KEY.public_key, bytes([good[0] ^ 1]) + good[1:], MESSAGE)
        assert not verify(KEY.public_key, good, MESSAGE + b".")
        assert not verify(OTHER.public_key, good, MESSAGE)
        assert not verify(b"no key", good, MESSAGE)


def test_real_signatures_go_on_to_hold() -> None:
    real = SigningKey(bytes(32))
    with simulated_signatures():
        assert verify(real.public_key, real.sign(MESSAGE), MESSAGE)
    assert not verify(KEY.public_key, KEY.sign(MESSAGE), MESSAGE), "out of a simulation it is worth nothing"
