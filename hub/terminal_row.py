"""A terminal as people read it, on the pages and on the command line."""

from typing import NamedTuple


class TerminalRow(NamedTuple):
    """One terminal: what the hub knows and what the terminal last said of itself."""

    terminal: str  # terminal id, hex
    name: str
    route: str  # the one it said it is set to; "" if none
    replica: str  # its current replica id, hex
    online: bool  # heard of within the setting `terminals.online_s`
    revoked: bool
    last_seen_ms: int | None  # None: paired, never synced
    held: int | None  # deltas it said it holds beyond the settlement; None: never said
    held_minor: int | None
    head_seq: int  # the last delta of its replica that the hub holds; 0: none
    reported_seq: int | None  # the last delta the terminal said it has written
    position: int | None  # the settlement position the terminal said it has installed
    address: str  # where it last came from; "" if unknown
    restored_ms: int | None  # when its storage was found to be an old copy; None: never since it was paired
    renewed_ms: int | None  # when it took another identity because of that
    silent: int = 0  # earlier identities of which nobody can tell what they wrote last
    earlier_ms: int | None = None  # when another computer last came with an old certificate of it
    recalled_ms: int | None = None  # when a list came back that says it is revoked, which the hub had lost

    @property
    def put_back(self) -> bool:
        """Whether its storage is an old copy now, and it has no new identity yet."""
        return self.restored_ms is not None and (self.renewed_ms or 0) < self.restored_ms
