"""What the page after a form says: the redirect carries one known word, never text that a page would show."""

from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Notice:
    """What was done (``title``) and what it means for money or service (``text``)."""

    title: str
    text: str
    tone: str = ""


NOTICES = {
    "topped-up": Notice(
        "Topped up", "The balance below includes it. Terminals know it after their next contact with the hub."
    ),
    "again": Notice(
        "This top-up was already booked",
        "It was sent twice and counted once; the balance below includes it. For another one use this form.",
        "waiting",
    ),
    "blocked": Notice("Blocked", "Each terminal refuses this card after its next contact with the hub."),
    "unblocked": Notice(
        "Unblocked",
        "Each terminal accepts this card after its next contact with the hub, an overdrawn one once paid.",
    ),
    "revoked": Notice(
        "Revoked",
        "The hub refuses this terminal from now on. Taps up to its cut-off stay counted; later ones that "
        "still turn up wait in quarantine, see Ledger.",
    ),
    "accepted": Notice(
        "Accepted",
        "What the revoked terminal wrote counts now, as it was signed. Each terminal knows it after its next "
        "contact with the hub. The terminal stays revoked.",
    ),
    "adopted": Notice(
        "Booked",
        "The hub wrote what was not in the ledger yet, on the same cards with the same amounts.",
    ),
    "closed": Notice(
        "Closed", "The figures below are fixed. Taps that come later restate them by adjustments."
    ),
    "given-up": Notice(
        "No longer waited for", "Should these entries turn up after all, they are taken and count."
    ),
    "set": Notice(
        "Saved",
        "The terminal goes by it after its next contact with the hub; by a reader after its next start.",
    ),
    "saved": Notice(
        "Saved",
        "Each terminal charges these fares after its next contact with the hub, the old ones until then.",
    ),
}


def notice(request: web.Request) -> Notice | None:
    """The notice that the address of this page asks for, if it asks for one."""
    return NOTICES.get(request.query.get("done", ""))


def after(path: str, done: str = "") -> web.HTTPSeeOther:
    """The redirect that ends a form: a reload of the page after it sends nothing twice."""
    return web.HTTPSeeOther(f"{path}?done={done}" if done else path)
