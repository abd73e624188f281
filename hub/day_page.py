"""A day of service as people read it: each terminal's taps and fares, and what was learnt since closing."""

from collections.abc import Sequence
from dataclasses import dataclass

from hub.silent_row import SilentRow


@dataclass(frozen=True, slots=True)
class GapRow:
    """Entries that may be of the day and are not here, by the numbers of their author's chain."""

    after_tap: int  # the day's last tap that is here before them
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class TerminalDay:
    """One terminal's day. Amounts in minor units, as they change balances: fares are negative."""

    name: str
    state: str  # "complete", "missing", "open", or "behind" while what is here is still being counted
    taps: int  # here now: numbers 1 to this of the day's; 0 while that is not known
    gaps: Sequence[GapRow]
    contested: int  # entries in quarantine because of a fork that nobody has resolved
    last_heard_ms: int  # until when it has said all that it has; 0: never, or it does not matter
    closed_taps: int  # as of closing; as of now for an open day
    closed_fares_minor: int
    restated_taps: int  # with what was learnt since
    restated_fares_minor: int
    silent: Sequence[SilentRow] = ()  # what keeps it open: former identities that nobody can speak for


@dataclass(frozen=True, slots=True)
class AdjustmentRow:
    """What was learnt of a closed day afterwards."""

    learnt_ms: int
    name: str
    taps: int
    fares_minor: int


@dataclass(frozen=True, slots=True)
class DayPage:
    """A day as people read it."""

    day: str  # "2026-11-21"
    limits: str  # "21 Nov 2026 03:00 to 22 Nov 2026 03:00, Europe/Berlin"
    start_ms: int
    end_ms: int
    ended: bool
    closed_ms: int | None  # None: the figures still grow
    terminals: Sequence[TerminalDay]  # those with taps on the day, or that may have some
    adjustments: Sequence[AdjustmentRow]

    @property
    def complete(self) -> bool:
        """Whether every terminal's taps of the day are here."""
        return all(row.state == "complete" for row in self.terminals)
