"""What a terminal asks a hub for: the settlement from where it stands, and newer documents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from crdt.cursor import MAX_POSITION, START, Cursor, read_cursor, write_cursor
from crdt.documents import MAX_VERSION
from crdt.errors import Malformed, MisuseError
from crdt.settlement import NO_SERIES, SERIES_BYTES
from crdt.wire import Reader, Writer

MAX_DOCUMENTS: Final = 8  # that a terminal names


@dataclass(frozen=True, slots=True)
class Pull:
    """A terminal asks for settlement pages, from where it stands, and for newer documents."""

    TYPE: ClassVar[int] = 5
    MAX_BODY_BYTES: ClassVar[int] = 1024

    series: bytes = NO_SERIES  # of the installed (or half staged) settlement
    base: int = 0  # the installed position
    after: Cursor = START  # the last cursor staged
    documents: Mapping[str, int] = field(default_factory=dict)  # the version held of each, by name

    def body(self) -> bytes:
        """Series 16, base varint, cursor, count of documents u8, of each by name: text, version varint."""
        if len(self.documents) > MAX_DOCUMENTS:
            raise MisuseError(f"a terminal names at most {MAX_DOCUMENTS} documents")
        writer = Writer().raw(self.series).varint(self.base)
        write_cursor(writer, self.after)
        writer.uint(len(self.documents), 1)
        for name in sorted(self.documents):
            writer.text(name).varint(self.documents[name])
        return writer.done()

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`."""
        reader = Reader(body)
        series, base, after = reader.raw(SERIES_BYTES), reader.varint(0, MAX_POSITION), read_cursor(reader)
        documents: dict[str, int] = {}
        for _ in range(reader.uint(1, 0, MAX_DOCUMENTS)):
            name = reader.text()
            if documents and name <= max(documents):
                raise Malformed("the documents are not in ascending order")
            documents[name] = reader.varint(0, MAX_VERSION)
        reader.end()
        return cls(series, base, after, documents)
