"""Everything that can go wrong on a terminal and that a person may have to read about.

EdgeError
|- SettingsError        the settings file
|- IdentityError        what pairing stored
|- ReaderTrouble        the card reader or the lights
|- PairingError         pairing with a hub
|  |- CodeRefused
|  |- HubImpostor
|  |- PairingRefused
|  |- NotCompared
|  `- PairedElsewhere
|- UplinkError          an exchange with the hub
|  |- HubUnreachable    (also while pairing)
|  |  `- HubTooSlow
|  |- HubDistrusted
|  |- HubRefused
|  |- HubBusy
|  |- AnswerRefused
|  |- LedgerBehind
|  |- NotSealed
|  `- Superseded
|- PeersUnusable        answering other terminals
|- SettingNotTaken      what a technician wants to set
`- ControlError         the technician's command and the running terminal

`str()` of each is a sentence that says what to do next.
"""

from typing import Final

from crdt.errors import RefusalCode

INTERRUPTED: Final = 130
"""The exit code of what Ctrl-C ended, as a shell gives it."""


class EdgeError(Exception):
    """Something is wrong that a person has to know about."""


class SettingsError(EdgeError):
    """The settings file is missing, unreadable, or holds a setting that cannot be used."""


class IdentityError(EdgeError):
    """What pairing stored in the ledger cannot be read back."""


class ReaderTrouble(EdgeError):
    """The card reader or the lights cannot be opened."""


class PairingError(EdgeError):
    """The terminal could not be paired."""


class CodeRefused(PairingError):
    """The pairing code is wrong, used up or too old."""


class HubImpostor(PairingError):
    """The computer that answered is not the one that gave out the code."""


class PairingRefused(PairingError):
    """The hub answered and does not want this terminal, or its answer cannot be used."""


class NotCompared(PairingError):
    """The hub has not shown yet what it holds of a restored terminal, which stays what it was until then."""


class PairedElsewhere(PairingError):
    """The terminal belongs to another fleet and holds its taps."""


class UplinkError(EdgeError):
    """An exchange with hub or peer came to nothing; the taps stay where they are, and it is tried again."""


class HubUnreachable(UplinkError):
    """No hub answers at any known address."""


class HubTooSlow(HubUnreachable):
    """The exchange did not end in time."""


class HubDistrusted(UplinkError):
    """What answers is not this fleet's hub, or the hub does not know this terminal."""


class HubRefused(UplinkError):
    """The hub answered with a refusal; `code` is its own word for it, "" where it gave none."""

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code


class HubBusy(UplinkError):
    """The hub has more to do than it can, looked at nothing, and says to come again in `wait_s` seconds."""

    def __init__(self, sentence: str, wait_s: int) -> None:
        super().__init__(sentence)
        self.wait_s = wait_s


class AnswerRefused(UplinkError):
    """The hub's answer is not acceptable, `code` says why; nothing of what was refused is stored."""

    def __init__(self, code: RefusalCode, sentence: str) -> None:
        super().__init__(f"The answer was refused ({code.name.lower()}): {sentence}")
        self.code = code


class LedgerBehind(UplinkError):
    """The hub holds later taps of this terminal than the terminal itself: an old image was restored."""


class NotSealed(UplinkError):
    """This identity may not write what is in the open segment; the taps are kept for one that may."""


class Superseded(UplinkError):
    """The terminal was paired anew meanwhile; what was begun as its earlier identity ends here."""


class SettingNotTaken(EdgeError):
    """A field of the terminal's document cannot be set so; nothing was changed."""


class PeersUnusable(EdgeError):
    """Other terminals cannot reach this one; it works with the hub alone."""


class ControlError(EdgeError):
    """The running terminal cannot be reached, or refused the command."""
