"""What a terminal says of itself with each sync, for the operator."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from crdt.errors import Malformed, MisuseError

MAX_STATUS_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Status:
    """Names and JSON values: a message of a session, see `frames`. Never decides anything."""

    TYPE: ClassVar[int] = 2
    MAX_BODY_BYTES: ClassVar[int] = MAX_STATUS_BYTES

    values: Mapping[str, object]

    def body(self) -> bytes:
        """A JSON object in UTF-8, at most MAX_STATUS_BYTES."""
        try:
            return _json(dict(self.values))
        except (TypeError, ValueError) as error:
            raise MisuseError("a status is made of JSON values") from error

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`. Malformed unless it is a JSON object of 64-bit integers and real text."""
        try:
            values = json.loads(body.decode(), parse_int=_int64)
            _json(values)  # refuses infinities, and half surrogate pairs, which no database takes
        except (ValueError, RecursionError) as error:
            raise Malformed("a status is not JSON") from error
        if not isinstance(values, dict):
            raise Malformed("a status is not a JSON object")
        return cls(values)


def _json(values: object) -> bytes:
    text = json.dumps(values, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def _int64(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer is too large")
    return value
