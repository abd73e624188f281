"""The operator's dashboard: server-rendered pages that keep themselves current where a browser allows it.

hub/README.md has the files in reading order.
"""

from aiohttp import web

from hub.pages import cards, dashboard, days, fleet, invite, ledger, login, terminals
from hub.pages.errors import error_page, refusals_as_pages
from hub.pages.live import stream
from hub.pages.render import static_file

__all__ = ["error_page", "routes"]

_LIVE = {
    "overview": dashboard.OVERVIEW_VIEW,
    "terminals": dashboard.TERMINALS_VIEW,
    "terminal": terminals.TERMINAL_VIEW,
    "card": cards.CARD_VIEW,
    "ledger": ledger.LEDGER_VIEW,
    "day": days.DAY_VIEW,
}

_GET = {
    "/": dashboard.overview,
    "/login": login.show_login,
    "/cards": cards.cards,
    "/cards/{card}": cards.card,
    "/terminals": dashboard.terminals,
    "/terminals/{terminal}": terminals.terminal,
    "/terminals/{terminal}/revoke": terminals.ask_revoke,
    "/invite": invite.invite,
    "/fleet": fleet.fleet,
    "/days": days.days,
    "/days/{day}": days.day,
    "/ledger": ledger.ledger,
    "/ledger/blocks/{block}": ledger.block,
    "/ledger/waiting/{replica}": ledger.ask_give_up,
    "/ledger/silent/{replica}": ledger.ask_give_up_silent,
}
_POST = {
    "/login": login.log_in,
    "/logout": login.log_out,
    "/cards/{card}/topup": cards.top_up,
    "/cards/{card}/block": cards.block,
    "/terminals/{terminal}/revoke": terminals.revoke,
    "/terminals/{terminal}/settings": terminals.save_settings,
    "/invite": invite.make_invite,
    "/fleet": fleet.save,
    "/ledger/blocks/{block}/adopt": ledger.adopt,
    "/ledger/blocks/{block}/accept": ledger.accept,
    "/ledger/waiting/{replica}": ledger.give_up,
    "/ledger/silent/{replica}": ledger.give_up_silent,
    "/ledger/flags/{replica}/{code}": ledger.dismiss,
    "/days/{day}/close": days.close,
    "/ledger/notice": ledger.take_notice_away,
}


def routes() -> list[web.RouteDef]:
    """Everything the dashboard answers to; mounted at the root by hub.app."""
    return [
        web.get("/static/{name}", static_file),
        web.get("/events", stream(_LIVE), allow_head=False),
        *(web.get(path, refusals_as_pages(handler)) for path, handler in _GET.items()),
        *(web.post(path, refusals_as_pages(handler)) for path, handler in _POST.items()),
    ]
