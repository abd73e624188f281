"""What the shim wrote down: every change to the watched files, and what the program said, in one order."""

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

_RECORD: Final = struct.Struct("<BBHIQII")  # `struct record` in shim.c
_CREATED: Final = 1
_FAILED: Final = 2

Mark = dict[str, Any]  # what the program says, as JSON


class What(IntEnum):
    """The kinds of record in shim.c."""

    OPEN = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    UNLINK = 5
    RENAME = 6
    LINK = 7
    MARK = 8


@dataclass(frozen=True, slots=True)
class Operation:
    """One call that succeeded, or `failed` because the shim was told to fail it."""

    what: What
    handle: int  # of the open file; 0 where the call names a path
    offset: int  # of the data; the new size for TRUNCATE
    name: str  # within the watched directory; "" is that directory
    data: bytes  # of WRITE and MARK; the new name for RENAME and LINK
    created: bool = False
    failed: bool = False

    @property
    def mark(self) -> Mark:
        """What the program said."""
        said: Mark = json.loads(self.data)
        return said


def read_log(path: Path) -> list[Operation]:
    """The operations in the log, in order. A record that is cut short ends it: the program was killed."""
    raw = path.read_bytes()
    operations = []
    at = 0
    while at + _RECORD.size <= len(raw):
        what, flags, name_length, handle, offset, data_length, _thread = _RECORD.unpack_from(raw, at)
        at += _RECORD.size
        if at + name_length + data_length > len(raw):
            break
        name = raw[at : at + name_length].decode()
        data = raw[at + name_length : at + name_length + data_length]
        at += name_length + data_length
        created, failed = bool(flags & _CREATED), bool(flags & _FAILED)
        operations.append(Operation(What(what), handle, offset, name, data, created, failed))
    return operations
