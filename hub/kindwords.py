"""What a person calls each kind of ledger entry, on the pages and on the command line."""

from crdt.facts import Kind

_KINDS = {
    Kind.FARE: "Fare",
    Kind.TOPUP: "Top-up",
    Kind.OPENING: "Opening balance",
    Kind.REFUND: "Refund",
    Kind.ADJUSTMENT: "Correction",
    Kind.REVERSAL: "Fare taken back",
    Kind.RETRACTION: "Credit taken back",
    Kind.DUPLICATE: "Fare recorded twice, taken back",
    Kind.REINSTATED: "Fare counted again",
}


def kind_word(kind: Kind) -> str:
    """What a person calls this kind of ledger entry."""
    return _KINDS[kind]
