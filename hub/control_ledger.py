"""The control socket's requests that carry files: the backup, and courier files in and out."""

from dataclasses import asdict

from aiohttp import hdrs, web

from hub import courier
from hub.keys import BACKUPS, LEDGER

BINARY = "application/octet-stream"
PIECE_BYTES = 64 * 1024


def ledger_routes() -> list[web.RouteDef]:
    """What the control socket answers to, of files."""
    return [
        web.get("/backup", backup),
        web.post("/ledger/import", import_),
        web.get("/ledger/export", export),
    ]


async def backup(request: web.Request) -> web.StreamResponse:
    """GET /backup: an encrypted copy of the ledger as it is now"""
    async with request.app[BACKUPS].copy() as copy:
        headers = {hdrs.CONTENT_TYPE: BINARY, hdrs.CONTENT_LENGTH: str(copy.size_bytes)}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        async for piece in copy.pieces():
            await response.write(piece)
    await response.write_eof()
    return response


async def import_(request: web.Request) -> web.Response:
    """POST /ledger/import: a courier file as the body -> what became of it, see courier.Imported"""
    imported = await courier.Import(request.app[LEDGER]).run(request.content.iter_chunked(PIECE_BYTES))
    return web.json_response(asdict(imported))


async def export(request: web.Request) -> web.StreamResponse:
    """GET /ledger/export: everything that the hub holds, as a courier file"""
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: BINARY})
    await response.prepare(request)
    async for piece in courier.export(request.app[LEDGER]):
        await response.write(piece)
    await response.write_eof()
    return response
