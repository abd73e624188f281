"""A terminal's clock for tests that are not about it."""

from edge.clock import TerminalClock


def standing_clock(at_ms: int = 0) -> TerminalClock:
    """One that stands still, and that nothing has set."""
    return TerminalClock(
        floor_ms=at_ms,
        epoch=1,
        save_epoch=lambda _epoch: None,
        save_floor=lambda _floor_ms: None,
        wall_ms=lambda: at_ms,
        elapsed_ms=lambda: 0,
        synchronised_ms=lambda: None,
    )
