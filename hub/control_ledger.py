"""The control socket's requests about the whole ledger: backup, courier files, forks, what is missing."""

import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from http import HTTPStatus

from aiohttp import hdrs, web

from hub import courier
from hub.adopting import no_block
from hub.bodies import json_object
from hub.errors import RequestRefused
from hub.excerpt import page_number
from hub.keys import BACKUPS, EVIDENCE, LEDGER, RECALL, SERVICE

BINARY = "application/octet-stream"
PIECE_BYTES = 64 * 1024

log = logging.getLogger(__name__)


def ledger_routes() -> list[web.RouteDef]:
    """What the control socket answers to, of files."""
    return [
        web.get("/backup", backup),
        web.post("/ledger/import", import_),
        web.get("/ledger/export", export),
        web.get("/ledger/forks", forks),
        web.get("/ledger/blocks/{block}", block),
        web.get("/ledger/waiting", waiting),
        web.get("/ledger/silent", silent),
        web.post("/ledger/give-up", give_up),
        web.post("/ledger/adopt", adopt),
        web.post("/ledger/dismiss", dismiss),
    ]


async def backup(request: web.Request) -> web.StreamResponse:
    """GET /backup: an encrypted copy of the ledger as it is now"""
    async with request.app[BACKUPS].copy() as copy:
        headers = {hdrs.CONTENT_TYPE: BINARY, hdrs.CONTENT_LENGTH: str(copy.size_bytes)}
        return await _sent(request, web.StreamResponse(headers=headers), copy.pieces())


async def import_(request: web.Request) -> web.Response:
    """POST /ledger/import: a courier file as the body -> what became of it, see courier.Imported"""
    file = courier.Import(request.app[LEDGER], request.app[EVIDENCE], request.app[RECALL])
    try:
        imported = await file.run(request.content.iter_chunked(PIECE_BYTES))
    except ConnectionError:
        log.warning("an import ended early: who sent it has broken off; what was merged before stays")
        raise RequestRefused("cut_short", "The file did not come to its end.") from None
    return web.json_response(asdict(imported))


async def export(request: web.Request) -> web.StreamResponse:
    """GET /ledger/export: everything that the hub holds, as a courier file"""
    pieces = courier.export(request.app[LEDGER])
    first = await anext(pieces)  # where there can be no file, the answer is a sentence
    return await _sent(request, web.StreamResponse(headers={hdrs.CONTENT_TYPE: BINARY}), pieces, first)


async def forks(request: web.Request) -> web.Response:
    """GET /ledger/forks?page=N -> {"blocks": evidence.QuarantineRow..., "flags": evidence.FlagRow..., "more"}

    "more": whether there is another page, of either.
    """
    evidence, page = request.app[EVIDENCE], page_number(request.query.get("page"))
    blocks, flags = await evidence.quarantine(page), await evidence.flags(page)
    return web.json_response(
        {
            "blocks": [asdict(row) for row in blocks.rows] if blocks.page == page else [],
            "flags": [asdict(row) for row in flags.rows] if flags.page == page else [],
            "more": bool(blocks.following or flags.following),
        }
    )


async def block(request: web.Request) -> web.Response:
    """GET /ledger/blocks/{block}?page=N -> {"entries": block_entries.EntryRow..., "more"}: what it says"""
    evidence, block = request.app[EVIDENCE], request.match_info["block"]
    if await evidence.block(block) is None:
        raise no_block()
    found = await evidence.entries(block, page_number(request.query.get("page")))
    rows = [{**asdict(row), "kind": row.kind.name.lower()} for row in found.rows]
    return web.json_response({"entries": rows, "more": bool(found.following)})


async def waiting(request: web.Request) -> web.Response:
    """GET /ledger/waiting -> evidence.WaitingRow..."""
    return web.json_response([asdict(row) for row in await request.app[EVIDENCE].waiting()])


async def silent(request: web.Request) -> web.Response:
    """GET /ledger/silent -> SilentRow..."""
    return web.json_response([asdict(row) for row in await request.app[EVIDENCE].silent()])


async def give_up(request: web.Request) -> web.Response:
    """POST /ledger/give-up {"replica": in hex} -> {}"""
    body = await json_object(request)
    await request.app[SERVICE].give_up(str(body.get("replica", "")))
    return web.json_response({})


async def adopt(request: web.Request) -> web.Response:
    """POST /ledger/adopt {"block": hash in hex, "others": whether all else of its author too} -> how much"""
    body = await json_object(request)
    others = body.get("others") is True
    entries = await request.app[SERVICE].adopt(str(body.get("block", "")), others=others)
    return web.json_response({"entries": entries})


async def dismiss(request: web.Request) -> web.Response:
    """POST /ledger/dismiss {"replica": in hex, "code"}, as of a flag of /ledger/forks -> {}"""
    body = await json_object(request)
    if not await request.app[SERVICE].dismiss(str(body.get("replica", "")), str(body.get("code", ""))):
        raise RequestRefused("no_flag", "There is no such flag.", HTTPStatus.NOT_FOUND)
    return web.json_response({})


async def _sent(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes], first: bytes = b""
) -> web.StreamResponse:
    """The response, with all of this in it, or as much as whoever asked has read."""
    try:
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    except ConnectionError:  # their disk is full, or Ctrl-C was pressed: the command says so itself
        log.warning("%s ended early: who asked for it has broken off", request.path)
    return response
