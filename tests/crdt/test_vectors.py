"""The protocol's vectors and README say what the code does: a second implementation can rely on them."""

import importlib
import json
import re
from typing import Any

import pytest

from crdt import protocol
from crdt.block import parse, verify
from crdt.certificate import AuthorCertificate
from crdt.columns import decode, encode
from crdt.courier import CourierReader
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import Kind
from crdt.frames import MESSAGES, BlockFrame
from crdt.ledger import Ledger
from crdt.numbering import restore
from crdt.revocations import Revocations
from crdt.session import Ended, Session
from crdt.settlement import parse_page, verify_page
from tests.crdt import vectors

README = (vectors.PATH.parents[2] / "crdt" / "README.md").read_text()
STORED: dict[str, Any] = json.loads(vectors.PATH.read_text())


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading of the README."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.search(r"(\|.*\n)+", section)
    assert lines
    return [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in lines[0].splitlines()[2:]]


def test_the_vectors_are_what_the_code_makes() -> None:
    """All but the compressed block, whose bytes may change with the zstd version; it is read instead."""
    made = vectors.build()
    assert {**made, "zstd_block": STORED["zstd_block"]} == STORED


def test_the_stored_vectors_read_back() -> None:
    hub, terminal = vectors.certificates()
    raws = [bytes.fromhex(block["raw"]) for block in STORED["blocks"]]
    ledger = Ledger(bytes.fromhex(STORED["keys"]["fleet"]["public_key"]))
    certificates = [
        AuthorCertificate.decode(bytes.fromhex(STORED["certificates"][name])) for name in ("hub", "terminal")
    ]
    assert not ledger.merge(raws, certificates).refused
    assert certificates == [hub, terminal]
    assert ledger.digest().hex() == STORED["state"]["digest"]
    columns = decode(bytes.fromhex(STORED["payload"]), 5)
    assert list(columns.deltas(vectors.TERMINAL_KEY.replica, 1)) == vectors.deltas()
    verify_page(parse_page(bytes.fromhex(STORED["page"])), hub)
    SignedDocument.decode(bytes.fromhex(STORED["document"])).verify(hub)
    assert Revocations.decode(bytes.fromhex(STORED["revocations"])) == vectors.revocations()


def test_the_stored_short_block_is_the_second_block_again() -> None:
    """Numbers become cards again, 0 is a card in full, and the signature is that of the whole block."""
    cards = {1: vectors.NTAG, 2: vectors.CLASSIC}
    raw = restore(bytes.fromhex(STORED["short_block"]), lambda numbers: [cards.get(each) for each in numbers])
    assert raw.hex() == STORED["blocks"][1]["raw"]
    verify(parse(raw), vectors.certificates()[1])


def test_the_stored_courier_file_carries_both_blocks() -> None:
    reader = CourierReader(vectors.FLEET, vectors.HUB_KEY.replica)
    events = reader.receive_data(bytes.fromhex(STORED["courier"])) + reader.receive_eof()
    raws = [event.raw.hex() for event in events if isinstance(event, BlockFrame)]
    assert raws == [block["raw"] for block in STORED["blocks"]]
    assert (reader.heads, events[-1]) == (vectors.ledger().frontier, Ended())


def test_the_stored_compressed_block_reads_back() -> None:
    block = parse(bytes.fromhex(STORED["zstd_block"]))
    columns = verify(block, vectors.certificates()[1])
    assert list(columns.deltas(block.header.replica, 1)) == vectors.busy_deltas()
    assert len(block.raw) < len(encode(vectors.busy_deltas()).data)


def test_the_stored_frames_make_a_session() -> None:
    session = Session(vectors.FLEET, vectors.HUB_KEY.replica)
    for name, message in vectors.messages().items():
        assert session.receive_data(bytes.fromhex(STORED["frames"][name])) == [message]


def test_the_readme_quotes_the_vectors() -> None:
    quotes = re.findall(r"```vector (\S+)\n([^`]*)```", README)
    assert len(quotes) > 15
    for path, quoted in quotes:
        value: Any = STORED
        for part in path.split("/"):
            value = value[int(part)] if isinstance(value, list) else value[part]
        assert "".join(quoted.split()) == value, path
    for kind in ("varints", "zigzags"):
        for encoded in STORED[kind].values():
            assert f"`{encoded}`" in README


def value_of(text: str) -> int:
    """A number as the README writes it: 4096, 2^40, 2^48 − 1."""
    power, _, less = text.partition(" − ")
    base, _, exponent = power.partition("^")
    return int(pow(int(base), int(exponent or 1))) - int(less or 0)


@pytest.mark.parametrize(("name", "value", "module"), table("Limits"))
def test_the_readmes_limits_are_the_codes(name: str, value: str, module: str) -> None:
    found = getattr(importlib.import_module(f"crdt.{module.strip('`')}"), name.strip("`"))
    assert found == value_of(value)


def test_every_limit_of_the_code_is_in_the_readme() -> None:
    listed = {row[0].strip("`") for row in table("Limits")}
    for _, _, module in table("Limits"):
        names = vars(importlib.import_module(f"crdt.{module.strip('`')}"))
        public = {name for name in names if name.startswith("MAX_")}
        assert public - listed <= {
            "MAX_OFFSET_WIDTH",
            "MAX_REFUSAL_BYTES",
            "MAX_VERSION",
            "MAX_VARINT",
        }


def test_the_readmes_frames_codes_and_kinds_are_the_codes() -> None:
    shown = [(int(number), int(largest)) for number, _, largest, _ in table("Frames")]
    assert shown == sorted((message.TYPE, message.MAX_BODY_BYTES) for message in MESSAGES)
    assert [name for _, name, _, _ in table("Frames")] == list(STORED["frames"])
    assert [(int(code), name) for code, name, _ in table("Refusals")] == [
        (code, code.name) for code in RefusalCode
    ]
    assert [(name, int(number)) for name, number, _ in table("The ledger in one page")] == [
        (kind.name, kind) for kind in Kind
    ]


def test_the_readme_names_every_path_and_service() -> None:
    names = {
        name: value for name, value in vars(protocol).items() if name.isupper() and isinstance(value, str)
    }
    outside = {
        name for name, value in names.items() if value.startswith(("/api/", "_farebox", "application/vnd"))
    }
    assert outside >= {"SYNC", "RENEW", "SERVICE_TYPE", "PEER_SERVICE_TYPE", "CONTENT_TYPE"}
    assert [name for name in sorted(outside) if f"`{names[name]}`" not in README] == []


def test_the_readme_lists_every_file() -> None:
    listed = {row[0].strip("`") for row in table("Files in reading order")}
    files = {path.name for path in (vectors.PATH.parents[2] / "crdt").glob("*.py")}
    assert listed == (files | {"store/"}) - {"__init__.py"}
