"""The connection of a database without threads in the hands of a tap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from crdt.store.connection import DriverConnection
from crdt.store.gate import Gate
from crdt.store.health import Health
from crdt.store.writer import Direct


class InlineDirect(Direct):
    """The connection in the hands of a tap, which may be cut off before and after its commit."""

    def __init__(
        self,
        connection: DriverConnection,
        gate: Gate,
        health: Health,
        cut: Callable[[], None],
        left: Callable[[], None],
        power_cut: Callable[[], None],
    ) -> None:
        """`left` is called after each tap, to run what was begun in it; `power_cut` when it is cut off."""
        super().__init__(connection, gate, health, lambda *_anything: None)
        self._cut = cut
        self._left = left
        self._power_cut = power_cut

    def end(self) -> None:
        """See Direct.end."""
        super().end()
        self._left()

    def commit(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """See Direct.commit."""
        try:
            self._cut()
            super().commit(sql, rows)
            self._cut()
        except Exception:
            raise
        except BaseException:
            self._power_cut()
            raise
