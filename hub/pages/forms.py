"""Reading what a person typed: each field is right, or has one sentence that says how to mend it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web

T = TypeVar("T")


class FieldError(ValueError):
    """A form field cannot be used; the text says what to enter instead."""


@dataclass
class Form:
    """The typed values of one request and the mistakes found so far, for showing the form again as it was.

    ``errors`` maps a field's name to its sentence; the name "" is for what is wrong with the whole form.
    """

    values: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """What was typed, without the spaces around it; empty when the field was not sent."""
        return self.values.get(name, "").strip()

    def read(self, name: str, reader: Callable[[str], T]) -> T | None:
        """The field through ``reader``; None when it raised FieldError, whose sentence is kept."""
        try:
            return reader(self.text(name))
        except FieldError as error:
            self.errors[name] = str(error)
            return None


async def posted(request: web.Request) -> Form:
    """The form a browser sent; anything in it that is no text (a file) is left out."""
    data = await request.post()
    return Form({name: value for name, value in data.items() if isinstance(value, str)})


def whole_number(text: str, lowest: int, highest: int) -> int:
    """An integer within the bounds (both included); raises FieldError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and lowest <= int(text) <= highest):
        raise FieldError(f"Enter a whole number from {lowest} to {highest}.")
    return int(text)
