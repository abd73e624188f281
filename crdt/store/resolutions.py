"""What became of the facts of a block in quarantine, in words that its row keeps.

A terminal's ledger has two more of its own, see `evidence`.
"""

from typing import Final

OPEN: Final = ""  # nobody has written the facts again
SAID: Final = "said"  # the terminal has, by its word or because it was replaced, and that is not here yet
PART: Final = "part"  # the hub has some of them, adopted with another block that is not here
REISSUED: Final = "reissued"  # the terminal has, under its new identity
ADOPTED: Final = "adopted"  # the hub has, by an operator's decision
UNDONE: Final = "undone"  # the hub has taken its own back; the terminal's count
UNRESOLVED: Final = frozenset({OPEN, SAID, PART})  # the ledger lacks facts of it, as far as is known
AWAITED: Final = (ADOPTED, SAID, PART)  # the terminal's own may come
COPIED: Final = (ADOPTED, PART, UNDONE)  # the hub has written facts of it
