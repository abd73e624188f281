"""A former identity of a terminal as people read it, on the pages and on the command line."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SilentRow:
    """A former identity of a terminal: nobody can tell what it wrote after it was last heard."""

    terminal: str
    replica: str
    last_seq: int  # its last entry that is here; 0: none is
    heard_ms: int  # when it last said all it had; 0: never
