"""Revoked authors, and what is kept as evidence."""

from typing import Final

from crdt.store import admission, concession, cutting, revoking
from edge import proving, reminding, revoked_list
from hub import recalling
from tests.simulation.actions import HUB, REVOKED, STORAGE
from tests.simulation.mutations.planting import mutation

MUTATIONS: Final = (
    mutation(
        "what a revoked author writes is taken",
        30,
        admission._Judge._check_revoked,
        "self._revocations.check(block.header.replica, block.last_seq)",
        "pass",
        theme=REVOKED,
        first=6,
    ),
    mutation(
        "what a revoked author wrote stays in the balances",
        60,
        cutting.cut_some,
        "balances.take_back(connection, loss, position)",
        "pass",
        theme=REVOKED,
    ),
    mutation(
        "what is accepted after all does not come back",
        60,
        revoking._readmit,
        "until=revocations.cut_offs.get(replica, MAX_SEQ)",
        "until=0 if replica in revocations.cut_offs else MAX_SEQ",
        theme=REVOKED,
    ),
    mutation(
        "a hub that was put back does not take the list back that terminals have",
        30,
        recalling.Recall._joined,
        "joined = ours.joined(theirs)",
        "joined = ours",
        theme=HUB,
    ),
    mutation(
        "a list of revocations counts as told whatever the hub answered",
        30,
        reminding.Reminding._say,
        "judged = refusal is not None and refusal.code not in _FOR_NOW",
        "judged = True",
        theme=HUB,
    ),
    mutation(
        "a terminal forgets a list of revocations before the hub has heard of it",
        30,
        revoked_list.forgets,
        "return bool(Revocations.decode(document.body).lacking(Revocations.decode(held.body)))",
        "return False",
        theme=HUB,
        first=12,
    ),
    mutation(
        "a terminal goes on counting what a revoked one wrote",
        60,
        concession.revoke,
        "removed = cut_off(connection, replica, revocations.cut_offs[replica])",
        "removed = cut_off(connection, replica, chains[replica].head.seq)",
        theme=REVOKED,
        first=6,
    ),
    mutation(
        "a list of revocations takes from a view what its terminal has still to write again",
        60,
        concession.revoke,
        "if replica in own and replica in revocations.written_again:",
        "if not replica:",
        theme=STORAGE,
        first=204,
    ),
    mutation(
        "evidence counts as delivered and is not sent",
        60,
        proving.Proving._give,
        "*map(BlockFrame, raws)",
        "*()",
        theme=STORAGE,
        first=204,
    ),
)
