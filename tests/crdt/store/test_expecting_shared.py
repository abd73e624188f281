"""What is expected of authors whose terminals speak to several hub processes in turn, and who spoke last."""

from crdt.frontier import Head
from crdt.store.expectations import HEARD_EVERY_MS
from crdt.store.hub import HubLedger
from tests.crdt.store.sharing import ONE, hubs, on_servers, until
from tests.crdt.store.test_completeness import paired_anew, say_all

HASH = bytes(32)


@on_servers
def test_what_was_given_up_is_waited_for_again_whichever_process_its_author_tells(url: str) -> None:
    """The operator was wrong: the terminal is there, and names what it has."""
    with hubs(url, 2) as (one, other):
        one.merge([], [ONE.certificate]).result()
        _name(one, 3, 1)
        assert other.give_up(ONE.key.replica).result()
        assert one.waiting().result() == []
        _name(one, 3, 1 + HEARD_EVERY_MS)
        assert [(told.replica, told.expected_seq) for told in other.waiting().result()] == [
            (ONE.key.replica, 3)
        ]


@on_servers
def test_who_spoke_last_is_the_same_whichever_process_it_spoke_to(url: str) -> None:
    """The identity that goes on is not the one that an operator is told to give up."""
    with hubs(url, 2) as (one, other):
        one.merge([], [ONE.certificate]).result()
        again = paired_anew(one)
        until(lambda: again.key.replica in other.authors())
        say_all(one, ONE, 1)
        say_all(other, again, 2)
        assert [silent.replica for silent in one.silent().result()] == [ONE.key.replica]
        say_all(one, ONE, 2 + HEARD_EVERY_MS)
        assert [silent.replica for silent in other.silent().result()] == [again.key.replica]


def _name(hub: HubLedger, seq: int, at_ms: int) -> None:
    """ONE says itself how far its chain goes."""
    hub.expect({ONE.key.replica: Head(seq, HASH)}, "HELLO", at_ms, ONE.key.replica).result()
