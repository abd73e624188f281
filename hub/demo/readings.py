"""Asks hub and terminals what their ledgers say; for single cards only when a ledger has changed."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from .control import Control, Json
from .state import Held, Reading

MAX_CARDS: Final = 500
OPENING: Final = "opening"


async def read_hub(control: Control, before: Reading | None) -> Reading:
    """The hub's account of itself; NotAnswering."""
    totals = await control.get("/status")
    if before is not None and before.digest == totals["digest"]:
        return before
    cards = await control.get("/cards", limit=MAX_CARDS)
    return Reading(
        digest=totals["digest"],
        held=0,
        written=totals["deltas"],
        balanced=totals["balanced"],
        balances={card["card"].upper(): card["balance_minor"] for card in cards},
    )


async def read_terminal(control: Control, uids: Iterable[str], before: Reading | None) -> Reading:
    """A terminal's account of itself; NotAnswering."""
    status = await control.get("/status")
    asked = frozenset(uids)
    unchanged = before is not None and (before.digest, before.held) == (status["digest"], status["held"])
    if before is not None and unchanged and asked <= before.asked:
        return before
    cards: Sequence[Json] = await asyncio.gather(*(control.get(f"/cards/{uid}") for uid in asked))
    known = {card["card"].upper(): card for card in cards if card["known"]}
    return Reading(
        digest=status["digest"],
        held=status["held"],
        written=status["head_seq"],
        balanced=status["balanced"],
        balances={uid: card["balance_minor"] for uid, card in known.items()},
        held_of={uid: held for uid, card in known.items() if (held := _held(status, card["history"]))},
        asked=asked,
    )


def _held(status: Json, history: Sequence[dict[str, Any]]) -> Held | None:
    """What a terminal holds of a card: the last `held` of its own entries are not settled."""
    settled_seq = status["head_seq"] - status["held"]
    held = [fact for fact in history if fact["replica"] == status["replica"] and fact["seq"] > settled_seq]
    if not held:
        return None
    return Held(
        sum(fact["amount_minor"] for fact in held if fact["kind"] != OPENING),
        sum(fact["amount_minor"] for fact in held if fact["kind"] == OPENING),
    )
