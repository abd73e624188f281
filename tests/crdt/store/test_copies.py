"""Which terminals had the same storage, as far as a hub was told."""

from crdt.facts import TerminalId
from crdt.store import copies
from crdt.store.amending import Amendment
from tests.crdt.store.fleet import Fleet

A, B, C, D, E = (TerminalId(bytes([number]) * 16) for number in range(5))


def test_copies_of_copies_are_found_from_every_one_of_them(fleet: Fleet) -> None:
    """Noted again, or of itself, it is the same: a technician pairs one as often as he likes."""

    def work(amendment: Amendment) -> None:
        for terminal, origin in ((B, A), (C, B), (C, B), (A, A), (E, D)):
            copies.note(amendment.connection, terminal, origin)

    fleet.hub.amend(work).result()
    noted = fleet.hub_database.read_and_wait(copies.pairs)
    assert sorted(map(sorted, noted)) == [[A, B], [B, C], [D, E]]
    for one in (A, B, C):
        assert copies.with_copies(noted, [one]) == {A, B, C}
    assert copies.with_copies(noted, [D]) == {D, E}
    assert copies.with_copies((), [A]) == {A}
