"""A server that goes away under a hub: nothing acknowledged is lost, and work goes on when it is back."""

from concurrent.futures import Future
from typing import Any

import pytest
from sqlalchemy import Connection, text

from crdt.errors import StoreFailed
from tests.crdt.store.fleet import card
from tests.crdt.store.merger import insist
from tests.crdt.store.servers import Server
from tests.crdt.store.sharing import (
    BLOCKS,
    ONE,
    PATIENCE_S,
    TOPUP,
    CursorReader,
    check_against_the_model,
    hubs,
    merger,
    on_mortals,
    on_postgresql,
    store_of,
    until,
)


@on_mortals
def test_invariant_4_a_server_that_is_killed_in_the_middle_loses_nothing_acknowledged(mortal: Server) -> None:
    """The process goes on by itself when the server is back; what was broken off is done once more."""
    url = mortal.fresh()
    with hubs(url, 1) as (hub,):
        reader = CursorReader()
        process = merger(url, 1)
        assert process.stdout is not None
        acknowledged = 0
        for _ in range(2):
            acknowledged += len([process.stdout.readline() for _ in range(BLOCKS // 4)])
            mortal.kill()
            mortal.start()
            insist(lambda: hub.heads())
            assert hub.heads().result()[ONE.key.replica].seq >= 2 * acknowledged
            reader.pull(hub)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert acknowledged + len(output.splitlines()) == BLOCKS
        check_against_the_model(hub, reader, 1)


@on_mortals
def test_work_fails_in_a_sentence_while_the_server_is_away_and_goes_on_after(
    mortal: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing waits for ever, and nobody has to start the hub again."""
    url = mortal.fresh()
    with hubs(url, 1, patience_s=0.0) as (hub,):
        hub.append(card(1), [TOPUP], 1).result()
        mortal.stop()
        try:
            for future in (hub.append(card(1), [TOPUP], 2), hub.balance(card(1))):
                with pytest.raises(StoreFailed, match="server"):
                    future.result(PATIENCE_S)
            with pytest.raises(StoreFailed, match="cannot be reached.*Nothing was written"):
                hub.append(card(1), [TOPUP], 2).result(PATIENCE_S)
            until(lambda: mortal.name != "postgresql" or "noticed late" in caplog.text)
        finally:
            mortal.start()
        assert not store_of(hub).failed
        insist(lambda: hub.append(card(1), [TOPUP], 3))
        assert hub.balance(card(1)).result() == 2000
    assert "cannot be reached" in caplog.text


@on_mortals
def test_work_that_waits_is_done_when_the_server_is_back(mortal: Server) -> None:
    """A restart of the server, for an update say, is a pause."""
    url = mortal.fresh()
    with hubs(url, 1, patience_s=float(PATIENCE_S)) as (hub,):
        mortal.stop()
        jobs: list[Future[Any]] = [hub.append(card(1), [TOPUP], number) for number in range(5)]
        mortal.start()
        for job in jobs:
            job.result(PATIENCE_S)
        assert hub.balance(card(1)).result() == 5000


@on_postgresql
def test_a_commit_of_unknown_outcome_says_so_and_repeating_is_harmless(url: str, server: Server) -> None:
    """Invariant 1: what may not be on disk is never acknowledged."""
    with hubs(url, 1) as (hub,):
        store_of(hub).write_and_wait(_die_at_commit)
        booking = hub.append(card(1), [TOPUP], 1, request="form")
        with pytest.raises(StoreFailed, match=r"not known\. Do the same once more"):
            booking.result(PATIENCE_S)
        store_of(hub).write_and_wait(lambda sql: sql.execute(text("DROP TRIGGER die ON request")))
        again = [hub.append(card(1), [TOPUP], 1, request="form").result() for _ in range(2)]
        assert [booking.state.balance_minor for booking in again] == [1000, 1000]


def _die_at_commit(connection: Connection) -> None:
    """From now on the server ends the connection of whoever commits a booking, after COMMIT was sent."""
    connection.execute(
        text(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
    )
    connection.execute(
        text(
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON request DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION die()"
        )
    )
