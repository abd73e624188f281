"""A new identity for a restored terminal, asked of the hub under the present one (POST RENEW)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from crdt.errors import RefusalCode
from edge.errors import AnswerRefused, IdentityError
from edge.identity import Identity, checked, new_keys
from edge.promised import Promised, former_in

MAX_REISSUED = 900
"""Blocks named in one request: more do not fit its body. The hub sees to the rest by their content."""

Ask = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Post a JSON object to the hub; its answer. Raises UplinkError."""


async def renewed_identity(
    ask: Ask,
    before: Identity,
    reissued: Sequence[bytes],
    entropy: Callable[[int], bytes],
    forgotten: Promised | None = None,
) -> Promised:
    """The identity the hub gives to new keys of the same terminal; nothing is stored here.

    `ask` posts the request's JSON and returns the answer's; `reissued`: hashes of the blocks whose facts were
    written again; `forgotten`: what it had promised before and does not know any more, which ends so. Raises
    UplinkError. Losing the answer does no harm: the next request brings other keys.
    """
    keys = await asyncio.to_thread(new_keys, entropy)
    request = {
        "public_key": keys.signing.public_key.hex(),
        "csr": await asyncio.to_thread(keys.certificate_request, before.certificate.name),
        "reissued": [each.hex() for each in reissued[:MAX_REISSUED]],
    }
    if forgotten is not None:
        request["forgotten"] = forgotten.identity.certificate.encode().hex()
    given = await ask(request)
    try:
        identity = await asyncio.to_thread(checked, keys, given)
    except IdentityError as error:
        raise AnswerRefused(RefusalCode.MALFORMED, str(error)) from error
    if identity.fleet != before.fleet or identity.certificate.terminal != before.certificate.terminal:
        raise AnswerRefused(RefusalCode.FOREIGN_FLEET, "it is an identity of another terminal")
    return Promised(identity, former_in(given.get("former", "")))
