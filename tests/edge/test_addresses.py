"""Where the hub may be: a hint never displaces an address that is known to be good (issue: discovery)."""

import pytest

from edge.addresses import MAX_HINTS, AddressBook, HubAddress, parse_address

FIXED, PROVEN = HubAddress("fixed.example"), HubAddress("proven.example")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hub", HubAddress("hub", 8443)),
        ("192.0.2.7:443", HubAddress("192.0.2.7", 443)),
        ("https://hub.local/", HubAddress("hub.local", 8443)),
        ("[fe80::1%eth0]:8443", HubAddress("fe80::1%eth0", 8443)),
    ],
)
def test_addresses_people_write_are_understood(text: str, address: HubAddress) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "http://hub", "hub:0", "hub:99999", "hub:x", "a b", "[::1", "hub/path", "u@hub"]
)
def test_anything_else_is_answered_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="an address such as"):
        parse_address(text)


def test_the_proven_and_the_fixed_address_outlive_all_hints() -> None:
    book = AddressBook(FIXED, PROVEN)
    book.hint([HubAddress("spoof.example"), FIXED])
    assert book.candidates() == [PROVEN, FIXED, HubAddress("spoof.example")]
    book.hint([])
    assert book.candidates() == [PROVEN, FIXED]


def test_hints_are_bounded() -> None:
    """Invariant 8: a liar on the LAN costs a bounded number of attempts."""
    book = AddressBook(None, None)
    book.hint(HubAddress(f"h{n}") for n in range(1000))
    assert len(book.candidates()) == MAX_HINTS


def attempt(book: AddressBook) -> list[HubAddress]:
    """The addresses of one attempt, which fails at each of them."""
    addresses = book.candidates()
    for address in addresses:
        book.tried(address)
    return addresses


def untried(book: AddressBook) -> bool:
    """Asked anew each time."""
    return book.untried


def test_a_turn_is_had_by_being_tried_and_by_nothing_else() -> None:
    """Where the first address answers, as it does all day, the others are only looked up."""
    book = AddressBook(None, PROVEN)
    book.hint(HubAddress(f"h{n}") for n in range(1000))
    assert book.candidates() == book.candidates()
    book.tried(PROVEN)
    assert book.candidates() == [PROVEN, *(HubAddress(f"h{n}") for n in range(MAX_HINTS))]
    attempt(book)
    assert book.candidates(but={PROVEN}) == [HubAddress(f"h{n}") for n in range(MAX_HINTS, 2 * MAX_HINTS)]


def test_hints_take_turns_whatever_else_is_announced() -> None:
    """Invariant 8: however many lies there are, under new names each time or not, the hub is tried."""
    book, hub = AddressBook(None, None), HubAddress("hub.example")
    for moment in range(2):
        book.hint([*(HubAddress(f"lie{moment}-{n}") for n in range(100)), hub])
        tried = attempt(book)
    assert hub in tried, "it has waited longer than those whose names are new"
    liars = [HubAddress(f"lie{n}") for n in range(100)]
    tried = []
    for _ in range(-(-101 // MAX_HINTS)):
        book.hint([*liars, hub])
        tried += attempt(book)
    assert {*liars, hub} == set(tried)


def test_only_a_new_address_is_worth_an_attempt_of_its_own() -> None:
    book = AddressBook(FIXED, None)
    book.hint([FIXED])
    assert not untried(book)
    book.hint([PROVEN])
    assert untried(book)
    attempt(book)
    book.hint([PROVEN, FIXED])
    assert not untried(book)
    book.hint([])
    book.hint([PROVEN])
    assert untried(book), "it went and came again: there may be somebody now"
    assert book.prove(PROVEN)
    assert not untried(book)
    assert not book.prove(PROVEN)
    assert book.proven == PROVEN
