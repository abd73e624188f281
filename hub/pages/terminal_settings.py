"""The form for what is set of a terminal: route, door, vehicle, reader, notes.

The page carries what it showed, and only what differs from that is an edit: who leaves a page open all day
does not take back what the technician on the bus has set meanwhile.
"""

from collections.abc import Callable

from aiohttp import web

from crdt.fleet import SettingRefused
from crdt.terminal_document import TERMINAL_SETTING_NAMES, TerminalSettings
from hub.errors import RequestRefused
from hub.keys import SETTINGS_DESK
from hub.pages.forms import FieldError, Form
from hub.settings_desk import SettingsView


def stored(view: SettingsView) -> Form:
    """The form as the page shows it first."""
    return Form({**view.values, **{shown(name): text for name, text in view.values.items()}})


def shown(name: str) -> str:
    """The hidden field with what the page showed in another."""
    return f"shown-{name}"


async def save(request: web.Request, terminal: str, form: Form) -> bool:
    """Set what was changed in the form; False, with the mistakes in the form, when nothing was."""
    changes = {}
    for name in TERMINAL_SETTING_NAMES:
        text = form.read(name, _reader(name))
        if text is not None and text != _plain(form.text(shown(name))):
            changes[name] = text
    if not form.errors:
        try:
            await request.app[SETTINGS_DESK].change(terminal, changes)
        except RequestRefused as refusal:
            form.errors[""] = str(refusal)
    elif "" not in form.errors:
        form.errors[""] = (
            "Mend what is marked below and save again. Until then the terminal goes on as it was."
        )
    return not form.errors


def _reader(name: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        plain = _plain(text)
        try:
            TerminalSettings(**{name: plain})
        except SettingRefused as error:
            raise FieldError(f"{str(error)[0].upper()}{str(error)[1:]}.") from error
        return plain

    return read


def _plain(text: str) -> str:
    """Browsers send line ends as CR LF."""
    return text.replace("\r\n", "\n")
