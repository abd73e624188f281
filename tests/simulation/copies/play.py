"""Plays one seed of copies to its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final
from unittest import mock

import crdt.pairing
from crdt.store import segment
from edge import identity
from hub import authority, callers
from tests.simulation import play as simulated
from tests.simulation.copies.body import NoSpake
from tests.simulation.copies.checks import check_books, heal, look
from tests.simulation.copies.steps import draw
from tests.simulation.copies.world import World
from tests.simulation.play import Played
from tests.simulation.signatures import SimulatedKey

DRAWN: Final = (8, 45)  # steps of a seed


class Play(World):
    """A seed's world, which plays itself."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, look)
        self.careful = bool(seed % 2)
        self._part_rows = self.random.choice((1, 500))

    def run(self) -> None:
        """Play, heal, compare."""
        with mock.patch.object(segment, "PART_ROWS", self._part_rows):
            for _ in range(self.random.randint(*DRAWN)):
                step = draw(self.random)
                self.now_ms += self.random.choice((50, 2_000, 45_000))
                self.trace.append((step.__name__,))
                step(self)
                for body in self.bodies:
                    look(body)
                self.hub.work()
                check_books(self)
            heal(self)


@contextmanager
def cheap_arithmetic() -> Iterator[None]:
    """Meanwhile keys and pairing codes cost nothing, and requests say by whose certificate they come."""
    with ExitStack() as undo:
        for module, name, instead in (
            (identity, "SigningKey", SimulatedKey),
            (authority, "SigningKey", SimulatedKey),
            (crdt.pairing, "SPAKE2_A", NoSpake),
            (crdt.pairing, "SPAKE2_B", NoSpake),
            (callers, "serial_of_caller", lambda request: request.serial),
        ):
            undo.enter_context(mock.patch.object(module, name, instead))
        yield


def play(seed: int, *, digest: bool = False) -> Played:
    """Play a seed: the same every time, in every process."""
    with cheap_arithmetic():
        return simulated.played(Play, seed, digest=digest)
