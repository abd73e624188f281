"""Dumps of a database on a real server, by that server's own tools."""

import subprocess

from sqlalchemy.engine import make_url

from tests.crdt.store.servers import PostgreSQL, Server
from tests.needs import needs_program


class Dump:
    """A database as its server's own tool writes it out, and reads it in."""

    def __init__(self, server: Server, url: str) -> None:
        self.server, self.url = server, url
        self.name = make_url(url).database
        tool = "pg_dump" if isinstance(server, PostgreSQL) else "mariadb-dump"
        self.dump = self._run(tool, b"")

    def put_back(self) -> None:
        """Drop what is there, and read the dump in; MariaDB's does so by table, and cuts no connection."""
        if isinstance(self.server, PostgreSQL):
            self.server.run(f"DROP DATABASE {self.name} WITH (FORCE)")
            self.server.run(f"CREATE DATABASE {self.name}")
            self._run("psql", self.dump)
        else:
            self._run("mariadb", self.dump)

    def _run(self, tool: str, given: bytes) -> bytes:
        url = make_url(self.url)
        program = needs_program(tool, "put a dump of the ledger back")
        where = (
            [self.url]
            if isinstance(self.server, PostgreSQL)
            else ["--no-defaults", f"-h{url.host}", f"-P{url.port}", f"-u{url.username}", str(url.database)]
        )
        return subprocess.run([program, *where], input=given, stdout=subprocess.PIPE, check=True).stdout
