"""A small fleet with fixed keys, and hypothesis strategies for what its replicas write."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from crdt.block import Block, seal
from crdt.certificate import AuthorCertificate, Limits, Role, issue
from crdt.facts import CERTIFIED, MAX_AMOUNT_MINOR, CardId, Context, Delta, Kind, TerminalId
from crdt.frontier import GENESIS
from crdt.signing import SigningKey, fleet_id

FLEET_KEY = SigningKey(b"F" * 32)
FLEET = fleet_id(FLEET_KEY.public_key)
HUB_KEY = SigningKey(b"H" * 32)
OTHER_FLEET_KEY = SigningKey(b"X" * 32)
ANYTHING = Limits(CERTIFIED, MAX_AMOUNT_MINOR, MAX_AMOUNT_MINOR)

HUB = issue(FLEET_KEY, TerminalId(b"hub".ljust(16)), "depot", Role.HUB, HUB_KEY.public_key, ANYTHING)


@dataclass(frozen=True)
class Terminal:
    """A replica with its key and certificate."""

    key: SigningKey
    certificate: AuthorCertificate

    def blocks(self, deltas: Sequence[Delta], sizes: Sequence[int]) -> list[Block]:
        """The deltas as a chain of blocks of these sizes; what is left over makes one more."""
        chain: list[Block] = []
        rest = list(deltas)
        for size in [*sizes, len(rest)]:
            part, rest = rest[:size], rest[size:]
            if part:
                chain.append(seal(self.key, FLEET, part, chain[-1].hash if chain else GENESIS))
        return chain


def terminal(number: int, limits: Limits = ANYTHING) -> Terminal:
    """Terminal `number` of the fleet."""
    key = SigningKey(number.to_bytes(32, "big"))
    name = f"bus {number}"
    identity = TerminalId(number.to_bytes(16, "big"))
    return Terminal(key, issue(FLEET_KEY, identity, name, Role.TERMINAL, key.public_key, limits))


TERMINALS = [terminal(number) for number in range(1, 4)]


def moment_of(number: int, at_ms: int) -> int:
    """One near it at which no other of the TERMINALS writes, and the hub does not: a card is in one place."""
    return at_ms // 4 * 4 + number % 4


amounts = st.one_of(st.integers(0, 1000), st.integers(0, MAX_AMOUNT_MINOR))


@st.composite
def money(draw: st.DrawFn) -> tuple[Kind, int]:
    """A kind that anybody may be allowed, and an amount that suits it."""
    kind = draw(st.sampled_from(sorted(CERTIFIED)))
    amount = draw(amounts)
    if kind is Kind.FARE:
        return kind, -amount
    if kind in (Kind.ADJUSTMENT, Kind.RETRACTION):
        return kind, (amount or 1) * draw(st.sampled_from([1, -1]))
    return kind, amount if kind in (Kind.OPENING, Kind.REVERSAL) else amount or 1


few_cards = st.integers(0, 5).map(lambda number: CardId(bytes([4, number, 0, 0, 0, 0, 1])))
any_card = st.binary(min_size=4, max_size=16).map(CardId)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=16)
contexts = st.builds(
    Context,
    route=st.one_of(st.just("110"), texts),
    trip=texts,
    stop=texts,
    clock_epoch=st.integers(0, 2**32 - 1),
    clock_error_ms=st.integers(0, 2**48 - 1),
)
times = st.one_of(
    st.integers(0, 2**48 - 1),
    st.integers(1_790_000_000, 1_790_000_900).map(lambda seconds: seconds * 1000),
    st.integers(17_900_000_000, 17_900_009_000).map(lambda tenths: tenths * 100),
)


@st.composite
def delta_lists(
    draw: st.DrawFn,
    author: Terminal = TERMINALS[0],
    cards: st.SearchStrategy[CardId] = few_cards,
    max_size: int = 30,
) -> list[Delta]:
    """Consecutive deltas of one replica, from 1."""
    facts = draw(
        st.lists(
            st.tuples(cards, money(), times, st.one_of(st.just(Context()), contexts)),
            min_size=1,
            max_size=max_size,
        )
    )
    return [
        Delta(author.key.replica, seq, card, kind, amount, at_ms, context)
        for seq, (card, (kind, amount), at_ms, context) in enumerate(facts, 1)
    ]


@st.composite
def chains(draw: st.DrawFn, max_size: int = 12) -> list[Block]:
    """Blocks of several replicas, each replica's a whole chain, in chain order."""
    blocks: list[Block] = []
    for author in draw(st.lists(st.sampled_from(TERMINALS), min_size=1, max_size=3, unique=True)):
        drawn, number = draw(delta_lists(author, max_size=max_size)), TERMINALS.index(author) + 1
        deltas = [replace(delta, at_ms=moment_of(number, delta.at_ms)) for delta in drawn]
        sizes = draw(st.lists(st.integers(1, 5), max_size=4))
        blocks += author.blocks(deltas, sizes)
    return blocks


CERTIFICATES = [author.certificate for author in TERMINALS]
