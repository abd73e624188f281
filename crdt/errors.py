"""Every error of the ledger, in one tree.

LedgerError
|- MisuseError        our own caller broke the contract: a bug to mend
|- InputRefused       bytes from outside are not acceptable; `.code` says which rule they broke
|  |- Malformed         not what the protocol says, or cut short
|  |- TooLarge          beyond a stated limit
|  |- BadSignature      the signature does not match the bytes and the key
|  |- ForeignFleet      made for, or by, another fleet
|  |- UnknownAuthor     no certificate for this key
|  |- NotPermitted      the author's role or limits do not allow it
|  |- ChainBroken       a block does not continue its replica's chain here (a gap, or a wrong previous hash)
|  |- ForkDetected      a replica sealed two different blocks for the same sequence numbers
|  |- Revoked           the author was enrolled and is no longer
|  |- WrongCode         the pairing code, or the TLS key under the pairing, is not the expected one
|  |- Unsupported       a newer protocol than this program speaks
|  |- Restored          the author's storage is older than what it has sealed before
|  |- UnknownCardNumber a short block names a card by a number that is not known here
|  |- ComeAgain         nothing is wrong with it, and it is more than is taken now, or too early
|- StoreError         the world below the ledger failed
   |- KeyUnusable       the file with the database key is missing, damaged, or open to others
   |- WrongKey          the database key does not open this database
   |- LedgerBusy        another process holds this ledger
   |- DriverUnusable    no database driver, or none that is new enough
   |- StoreFailed       the disk or the database refused to work
   |- Overloaded        more work waits than the ledger takes on; try again in a moment

`str(error)` is a sentence for a person.
"""

from enum import IntEnum
from typing import ClassVar


class RefusalCode(IntEnum):
    """Why input was refused, as one byte on the wire (see README.md). Numbers are never reused."""

    MALFORMED = 1
    TOO_LARGE = 2
    BAD_SIGNATURE = 3
    FOREIGN_FLEET = 4
    UNKNOWN_AUTHOR = 5
    NOT_PERMITTED = 6
    CHAIN_BROKEN = 7
    FORK_DETECTED = 8
    REVOKED = 9
    WRONG_CODE = 10
    UNSUPPORTED = 11
    RESTORED = 12
    UNKNOWN_CARD_NUMBER = 13
    COME_AGAIN = 14


class LedgerError(Exception):
    """Something went wrong in the ledger."""


class MisuseError(LedgerError):
    """The program used the ledger in a way its contract forbids; please report it as a bug."""


class InputRefused(LedgerError):
    """Data from outside was refused and nothing was changed. Raise one of the subclasses."""

    code: ClassVar[RefusalCode]


class Malformed(InputRefused):
    """The data is damaged or is not what the protocol says."""

    code = RefusalCode.MALFORMED


class TooLarge(InputRefused):
    """The data is larger than the protocol allows."""

    code = RefusalCode.TOO_LARGE


class BadSignature(InputRefused):
    """The signature does not match: the data was altered or made with another key."""

    code = RefusalCode.BAD_SIGNATURE


class ForeignFleet(InputRefused):
    """The data belongs to another fleet."""

    code = RefusalCode.FOREIGN_FLEET


class UnknownAuthor(InputRefused):
    """Nobody with this key is enrolled in the fleet, as far as this ledger knows."""

    code = RefusalCode.UNKNOWN_AUTHOR


class NotPermitted(InputRefused):
    """The author is enrolled but may not write this."""

    code = RefusalCode.NOT_PERMITTED


class ChainBroken(InputRefused):
    """The block does not follow the last one held of its replica; the blocks between are missing."""

    code = RefusalCode.CHAIN_BROKEN


class ForkDetected(InputRefused):
    """The replica sealed two different blocks for the same facts: its storage was copied or restored."""

    code = RefusalCode.FORK_DETECTED


class Revoked(InputRefused):
    """The author's enrolment was withdrawn."""

    code = RefusalCode.REVOKED


class WrongCode(InputRefused):
    """The pairing code is wrong, or somebody stands between the terminal and the hub."""

    code = RefusalCode.WRONG_CODE


class Unsupported(InputRefused):
    """The other side speaks a newer protocol; update this program."""

    code = RefusalCode.UNSUPPORTED


class Restored(InputRefused):
    """The author's storage is older than what it sealed before; it needs a new identity."""

    code = RefusalCode.RESTORED


class UnknownCardNumber(InputRefused):
    """A block names a card by a number that is not known here; send the block in full."""

    code = RefusalCode.UNKNOWN_CARD_NUMBER


class ComeAgain(InputRefused):
    """Nothing is wrong with it, but it is more than is taken now, or too early; send it again later."""

    code = RefusalCode.COME_AGAIN


class StoreError(LedgerError):
    """The ledger's storage failed."""


class KeyUnusable(StoreError):
    """The file with the database key is missing, damaged, or open to others than its owner."""


class WrongKey(StoreError):
    """The database key does not open this database."""


class LedgerBusy(StoreError):
    """Another process is using this ledger."""


class DriverUnusable(StoreError):
    """No usable database driver is installed."""


class StoreFailed(StoreError):
    """The database or the disk refused to work."""


class Overloaded(StoreError):
    """More work is waiting than the ledger takes on; try again in a moment."""
