"""Amounts between integer minor units and what a person reads and types. No float touches them."""

import re

from hub.pages.forms import FieldError

MINUS = "\u2212"
"""A true minus sign: as wide as a digit, so that columns of figures stay in line, and read out as "minus"."""

THIN_SPACE = "\u202f"
"""Groups thousands in a way that is read the same where the comma is a decimal sign."""

_TYPED = re.compile(r"(\d{1,13})(?:[.,](\d{1,9}))?", re.ASCII)


def plain(amount_minor: int, exponent: int, *, signed: bool = False) -> str:
    """The amount in major units, without the currency: ``plain(-123456, 2)`` is "−1 234.56".

    ``signed`` puts a "+" before amounts above zero, for columns of changes.
    """
    whole, rest = divmod(abs(amount_minor), 10**exponent)
    text = f"{whole:,}".replace(",", THIN_SPACE)
    if exponent:
        text += f".{rest:0{exponent}d}"
    if amount_minor < 0:
        return MINUS + text
    return "+" + text if signed and amount_minor > 0 else text


def typed(amount_minor: int, exponent: int) -> str:
    """The amount as one types it into a form field: digits and a point only; ``parse`` reads it back."""
    whole, rest = divmod(abs(amount_minor), 10**exponent)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{whole}.{rest:0{exponent}d}" if exponent else f"{sign}{whole}"


def parse(text: str, exponent: int, lowest_minor: int, highest_minor: int) -> int:
    """Minor units from what a person typed ("10", "2.5", "2,50"); raises FieldError with a sentence."""
    match = _TYPED.fullmatch(text.strip())
    example = typed(10 ** (exponent + 1), exponent)
    if match is None:
        raise FieldError(f"Enter an amount in digits, for example {example}.")
    whole, rest = match[1], match[2] or ""
    if len(rest) > exponent:
        places = {0: "no decimals", 1: "one decimal"}.get(exponent, f"at most {exponent} decimals")
        raise FieldError(f"This currency has {places}; enter for example {example}.")
    amount_minor = int(whole + rest.ljust(exponent, "0"))
    if not lowest_minor <= amount_minor <= highest_minor:
        lowest, highest = plain(lowest_minor, exponent), plain(highest_minor, exponent)
        raise FieldError(f"Enter an amount from {lowest} to {highest}.")
    return amount_minor
