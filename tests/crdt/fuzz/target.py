"""What the fuzzer is aimed at: a decoder, how to make mutants that get past its checksums, what must hold."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.crdt.fuzz.mutate import Mutator


@dataclass(frozen=True)
class Target:
    """One decoder."""

    name: str
    make: Callable[[Mutator], bytes]  # a mutant, signed and framed as its author would
    check: Callable[[bytes], bool]  # whether it was accepted; raises whatever is not a refusal
    weight: int = 1  # how often it is tried, beside the others
    peak_bytes: int = 24 * 1024 * 1024  # the most that `check` may hold at a time
