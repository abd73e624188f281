"""What can go wrong in the hub, as a tree; each docstring and each message is a sentence for a person.

HubError
|- SettingsError      a settings file is wrong
|- SetupError         the hub cannot start as it stands (not initialised, port in use, key file unsafe)
|- FileTrouble        a file that a command was given cannot be read or written
|- HubNotRunning      a command needs the running hub and found none
|- Stopped            a command was stopped before it began, or before the hub had answered
|- PutBack            the hub turned out to be an older copy of itself, and has to start again
|- HubFailed          the running hub failed at what a command asked for
`- RequestRefused     somebody asked for something the hub does not do: `.status` is the HTTP status
"""

from http import HTTPStatus
from typing import Final

INTERRUPTED: Final = 130  # the exit status of what Ctrl-C ended, as a shell gives it


class HubError(Exception):
    """The hub could not do what it was asked; the message says why and what to do."""


class SettingsError(HubError):
    """A settings file is wrong; the message names the file, the key and what was expected."""


class SetupError(HubError):
    """The hub cannot start as it stands; the message says what is missing."""


class FileTrouble(HubError):
    """A file that a command was given cannot be read or written; the message names it and says why."""


class HubNotRunning(HubError):
    """A command needs the running hub and none answers on its control socket."""


class Stopped(HubError):
    """Ctrl-C stopped a command before it began or the hub had answered; the message says what that leaves."""


class PutBack(HubError):
    """The hub turned out to be an older copy of itself; started again it has another identity."""

    def __init__(self) -> None:
        super().__init__(
            "This hub's whole state was put back from an older copy: somebody brought a block that it has"
            " signed and does not have. Start the hub again: it goes on under a new identity, and terminals"
            " bring back taps and top-ups. The Ledger page says what is still missing, and which bookings"
            " have the number of another one and wait for you. Until all of that is here do not book a top-up"
            " again: both would count."
        )


class HubFailed(HubError):
    """The running hub failed at what a command asked for and does not say why: a bug, which its log shows."""


class RequestRefused(HubError):
    """A request is not acceptable. `code` is a short word for programs, the message is for people.

    `retry_after_s`: when to come again, in whole seconds; None where that would change nothing.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = HTTPStatus.BAD_REQUEST,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s
