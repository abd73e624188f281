"""What a terminal answers to a peer's exchange: messages in, messages out. No HTTP, no TLS, no event loop.

A peer is another terminal of the fleet. It is believed about its own open taps; of sealed blocks only the
author's certificate and signature count, whoever carries them. Nothing here needs a hub.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from crdt.block import claim_of
from crdt.certificate import AuthorCertificate
from crdt.errors import ComeAgain, InputRefused, Malformed, NotPermitted
from crdt.facts import ReplicaId
from crdt.frames import (
    MAX_EXCHANGE_BYTES,
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Hello,
    Message,
    Refusal,
    Want,
)
from crdt.frontier import Frontier, joined, leading
from crdt.open_segment import OpenSegment
from crdt.pull import Pull
from crdt.session import Ended, Event, Refused
from crdt.store.blocks import NO_HEAD
from crdt.store.terminal import TerminalLedger
from crdt.tlsnames import TlsIdentity
from edge import revoked_list
from edge.acquaintances import Acquaintances
from edge.delivery import at_a_time
from edge.identity import Identity

MAX_ANSWER_BYTES = 512 * 1024
"""Of blocks, in one answer."""
MAX_CERTIFICATES = 64
"""In one exchange; each costs a signature verification."""
MAX_REFUSALS = 16
"""In one answer; the first ones say what is wrong."""
MAX_HELD = 1_000_000
"""Deltas beyond the settlement, of all terminals: beyond it others' blocks have to find another carrier."""
MAX_HELD_OF_ONE = 150_000
"""The same of one author: four months of a bus. Beyond it no peer's word fills this terminal with more."""


@dataclass(slots=True)
class PeerHeard:
    """What a peer said in one exchange."""

    caller: TlsIdentity
    hello: Hello | None = None
    certificates: list[AuthorCertificate] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    want: Want | None = None
    segment: OpenSegment | None = None
    pull: Pull | None = None
    listed: bytes | None = None
    """A list of revoked terminals."""
    refused: Refused | None = None  # it broke the protocol; nothing of it counts

    def take(self, event: Event) -> None:
        """One more event of the session. Raises InputRefused for what a peer does not take."""
        match event:
            case Hello():
                if event.replica != self.caller.replica:
                    raise NotPermitted("The TLS certificate belongs to another replica than HELLO names.")
                self.hello = event
            case CertificateFrame(raw):
                if len(self.certificates) >= MAX_CERTIFICATES:
                    raise NotPermitted(f"At most {MAX_CERTIFICATES} certificates may come in one exchange.")
                self.certificates.append(AuthorCertificate.decode(raw))
            case BlockFrame(raw):
                self.blocks.append(raw)
            case Want():
                self.want = event
            case OpenSegment():
                self.segment = event
            case Pull():
                self.pull = event
            case DocumentFrame(raw):
                if self.listed is not None:
                    raise NotPermitted("At most one document may come in one exchange.")
                self.listed = raw
            case Refused():
                self.refused = event
            case Refusal() | Ended() | Ack():
                pass
            case _:
                raise NotPermitted(f"A peer takes no {type(event).__name__}.")


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What goes back, HELLO first, and what the exchange did here."""

    messages: Sequence[Message]
    brought: int = 0
    """Blocks that were new here."""
    behind: bool = False
    """Whether the peer has blocks that are missing here."""


class PeerAnswerer:
    """Answers exchanges from one identity's ledger. Its methods wait for the disk: not for the event loop."""

    def __init__(self, identity: Identity, ledger: TerminalLedger, acquaintances: Acquaintances) -> None:
        self._identity = identity
        self._ledger = ledger
        self._acquaintances = acquaintances

    def answer(self, heard: PeerHeard) -> PeerAnswer:
        """Take in what was brought, and answer; an `Ack` in it is durable.

        Raises InputRefused when there is nothing to talk about with this peer.
        """
        if heard.hello is None:
            raise Malformed("the session has no HELLO")
        self._acquaintances.meet(heard.caller.replica, heard.certificates)
        messages: list[Message] = []
        self._learn(heard, messages)
        brought = self._merge(heard, messages)
        behind = self._believe(heard, messages)
        segment = own_segment(self._ledger)
        if segment is not None:
            messages.append(segment)
        if heard.want is not None:
            messages.append(CertificateFrame(self._identity.certificate.encode()))
            if heard.want.after or heard.want.others:
                messages += self._ledger.answer(heard.want, MAX_ANSWER_BYTES)
        hello = Hello(self._identity.fleet, self._identity.replica, self._frontier(heard, heard.hello))
        return PeerAnswer([hello, *messages], brought, behind)

    def _learn(self, heard: PeerHeard, messages: list[Message]) -> None:
        """Take a newer list of revoked terminals, and give one; before anything is counted."""
        if heard.listed is not None:
            try:
                new = revoked_list.take(self._identity, self._ledger, heard.listed, heard.certificates)
            except InputRefused as error:
                messages.append(Refusal.of(error))
            else:
                if new:
                    self._acquaintances.meet(heard.caller.replica)
        if heard.pull is not None:
            messages.append(revoked_list.asking(self._ledger))
            messages += revoked_list.newer_than(self._ledger, revoked_list.named([heard.pull]))

    def _merge(self, heard: PeerHeard, messages: list[Message]) -> int:
        if not heard.blocks:
            return 0
        if self._ledger.status()["held"] > MAX_HELD:
            raise NotPermitted("this terminal carries as many taps as it can; bring the blocks to the hub")
        taken = taken_now(self._ledger, heard.blocks)
        report = self._ledger.merge(taken, heard.certificates)
        messages.append(Ack(report.heads))
        if len(taken) < len(heard.blocks):
            messages.append(Refusal.of(ComeAgain("this terminal takes no more of it now")))
        messages += [Refusal.of(refused.error) for refused in report.refused[:MAX_REFUSALS]]
        return len(report.added)

    def _believe(self, heard: PeerHeard, messages: list[Message]) -> bool:
        if heard.segment is None:
            return False
        pulls = [] if heard.pull is None else [heard.pull]
        if revoked_list.named(pulls) > revoked_list.version_of(self._ledger):
            return True  # it comes again with the list: what is written again must not count twice
        try:
            return not self._acquaintances.believe(heard.caller.replica, heard.segment)
        except InputRefused as error:
            messages.append(Refusal.of(error))
            return False

    def _frontier(self, heard: PeerHeard, hello: Hello) -> Frontier:
        """The heads that matter to the caller: of those it names, and with a WANT all that are held.

        What is settled here is not taken from anybody, so it counts as held, where it is asked about.
        """
        held = self._ledger.frontier()
        behind = any(head.seq > held.get(replica, NO_HEAD).seq for replica, head in hello.frontier.items())
        # A fleet's settled heads are many, and hardly ever of interest: not for every tap of a peer.
        known = joined(self._ledger.settled_frontier(hello.frontier), held) if behind else held
        named = {replica: known[replica] for replica in hello.frontier if replica in known}
        return named if heard.want is None else leading(held | named, named, held)


def overfull(ledger: TerminalLedger, authors: Collection[ReplicaId]) -> set[ReplicaId]:
    """Those of these authors of whom so much is held beyond the settlement that no more is carried for them.

    Of a long chain only: a fleet's settled heads are not read for every exchange.
    """
    held = ledger.frontier()
    long = {one: held[one].seq for one in authors if one in held and held[one].seq > MAX_HELD_OF_ONE}
    settled = ledger.settled_frontier(long) if long else {}
    return {one for one, seq in long.items() if seq - settled.get(one, NO_HEAD).seq > MAX_HELD_OF_ONE}


def taken_now(ledger: TerminalLedger, raws: Sequence[bytes]) -> list[bytes]:
    """Those of a peer's blocks that are taken in one exchange; others may come again, or go another way."""
    claims = [claim_of(raw) for raw in raws]
    full = overfull(ledger, {claim[0] for claim in claims if claim is not None})
    kept = [raw for raw, claim in zip(raws, claims, strict=True) if claim is None or claim[0] not in full]
    return at_a_time(kept, MAX_EXCHANGE_BYTES)


def own_segment(ledger: TerminalLedger) -> OpenSegment | None:
    """The open taps of this terminal, for a peer. None while they may bear numbers that others know as
    something else: then they are told once they are written again under a new identity."""
    return None if ledger.suspended else ledger.open_segment()
