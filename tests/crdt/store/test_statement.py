"""Statements made text once: what they say to SQLite, and that it answers the same."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, bindparam, select

from crdt.store.inline import InlineDatabase
from crdt.store.sql import Bulk
from crdt.store.statement import Statement

METADATA = MetaData()
NUMBER = Table("number", METADATA, Column("number", Integer, primary_key=True))
IN_ORDER = select(NUMBER.c.number).order_by(NUMBER.c.number)


def said_in_a_read(statement: Statement, **values: int) -> tuple[list[int], str]:
    """The numbers that a statement finds among 1 to 5, and what it said to SQLite."""
    said: list[str] = []
    with InlineDatabase.open(None, b"") as database:
        database.create(METADATA)
        database.write_and_wait(
            lambda connection: Bulk(NUMBER).run(connection, [(one,) for one in range(1, 6)])
        )
        raw = database.connection.connection.driver_connection
        assert raw is not None
        raw.set_trace_callback(said.append)
        rows = database.read_and_wait(lambda connection: statement.rows(connection, **values))
        raw.set_trace_callback(None)
    return [number for (number,) in rows], said[-1]


def test_a_fixed_limit_is_said_in_words() -> None:
    """SQLite plans a query anew for each bound LIMIT, which takes longer than most answers."""
    after = Statement(IN_ORDER.where(NUMBER.c.number > bindparam("after")).limit(2))
    found, said = said_in_a_read(after, after=1)
    assert found == [2, 3]
    assert "LIMIT 2" in said


def test_a_limit_that_changes_is_no_bare_parameter() -> None:
    """The same; it is planned for any, as SQLite plans what it does not know."""
    some = Statement(IN_ORDER.limit(bindparam("most", type_=BigInteger)).offset(1))
    for most in (1, 3):
        found, said = said_in_a_read(some, most=most)
        assert found == [2, 3, 4][:most]
        assert f"LIMIT ({most} + 0)" in said
