"""Storage that was put back, and the identities that go with it."""

from typing import Final

from crdt.store import concession_plan, kin, marks, merging, own_chain, rewriting, segment, starting
from crdt.store.memory import Memory
from edge import comparing
from hub import revoking as hub_revoking
from tests.simulation.actions import HUB, STORAGE
from tests.simulation.mutations.planting import Change, mutation
from tests.simulation.mutations.second_guards import NOTED_MOMENTS

MUTATIONS: Final = (
    mutation(
        "a terminal does not notice that its storage was put back",
        60,
        marks.Marks.check_start,
        "if mark.seq > head.seq or (",
        "if False and (",
        Change(marks.Marks.check_start, "if database_nonce not in self._known:", "if False:"),
        theme=STORAGE,
        first=48,
    ),
    mutation(
        "a hub put back from a backup numbers facts again",
        60,
        starting._is_put_back,
        "return started or not",
        "return False and not",
        theme=HUB,
    ),
    mutation(
        "a concession leaves open what the hub has sealed",
        60,
        concession_plan._again,
        "if Content.of_row(row[1:]) in said]",
        "if False]",
        theme=STORAGE,
        first=6,
    ),
    mutation(
        "a concession writes nothing again",
        60,
        concession_plan._again,
        "if Content.of(fact) not in said]",
        "if False]",
        theme=STORAGE,
        first=18,
    ),
    mutation(
        "what is being written again counts before the chain that it is of gives way",
        60,
        segment.hide,
        "_AGAIN_FROM.run(connection, place=after + 1)",
        "after",
        theme=STORAGE,
        first=540,
    ),
    mutation(
        "a new identity takes over all taps but one",
        60,
        Memory.succeed,
        "self.segment, self.held = former.segment, former.held",
        "self.segment, self.held = former.segment[1:], former.held",
        theme=STORAGE,
        first=6,
    ),
    mutation(
        "a renewal does not end the identity before",
        30,
        hub_revoking.Revoker.replace,
        "if not new:",
        "if new or not new:",
        theme=STORAGE,
        first=6,
    ),
    mutation(
        "a renewal ends the identity before beyond what the hub holds",
        30,
        hub_revoking._held,
        "heads.get(replica, NO_HEAD).seq for",
        "heads.get(replica, NO_HEAD).seq + 9 for",
        theme=STORAGE,
        first=6,
    ),
    mutation(
        "a suspended terminal that is paired anew is not compared with the hub",
        60,
        comparing.take_up,
        "again = await compare(terminal, before, promised, exchange)",
        "again = 0",
        theme=STORAGE,
        first=6,
    ),
    mutation(
        "a copy with a promised identity is not compared with what that one has written",
        60,
        comparing._Comparison.ask_kin,
        "{*self.promised.former, self.promised.identity.replica, *here}",
        "{*self.promised.former, *here}",
        theme=STORAGE,
        first=6,
    ),
    mutation(
        "what a list of revocations cuts off of a replaced identity is not written again",
        60,
        concession_plan._again,
        "lost = [fact for fact in _facts(leave) if",
        "basis = basis._replace(aside=()); "
        "lost = [fact for fact in _facts(block for block in leave if block.last_seq <= basis.cut_off) if",
        theme=STORAGE,
        first=204,
    ),
    mutation(
        "what a hub has adopted counts on when its terminal writes it again",
        60,
        kin.Kin.concerned,
        "_NOBODY.union(*(self.identities(replica) for replica in came))",
        "_NOBODY",
        NOTED_MOMENTS,
        theme=STORAGE,
        first=402,
    ),
    mutation(
        "a hub adopts what the terminal has written again",
        60,
        rewriting.held,
        "count[content] += times",
        "count[content] += times * (author in kin.hubs)",
        NOTED_MOMENTS,
        theme=STORAGE,
        first=18,
    ),
    mutation(
        "a block of its own tells a hub nothing that was put back with its marks",
        60,
        own_chain.OwnChain.look,
        "if not (own in admitted.moved or own in admitted.ahead or evidence):",
        "if True:",
        theme=HUB,
        first=18,
    ),
    mutation(
        "what a hub has lost of its own is not kept where it has given the numbers again",
        60,
        merging._keep,
        "quarantine.put(connection, lost, at_ms, bounded=False)",
        "[]",
        theme=HUB,
        first=18,
    ),
)
