"""Who may know whom: the packages' directions, no cycles, two ledgers apart, and a `crdt` pure but for its
store."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("crdt", "edge", "hardware", "hub")
ALLOWED = {
    "crdt": {"crdt"},
    "hardware": {"hardware"},
    "edge": {"edge", "crdt", "hardware"},
    "hub": {"hub", "crdt"},
}

# What pure code may import: everything here computes, nothing knows the time, chance, a file or a socket.
PURE_STANDARD = {
    "abc", "base64", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib",
    "hmac", "itertools", "json", "math", "operator", "re", "struct", "threading", "types", "typing", "zlib",
}  # fmt: skip
PURE_THIRD_PARTY = {"automerge", "cryptography", "spake2", "zstandard"}


def sources(package: str) -> dict[str, ast.Module]:
    """Every module of a package by its dotted name, parsed."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


def imports(name: str, tree: ast.Module) -> Iterator[str]:
    """The dotted names a module imports anywhere in it, also under TYPE_CHECKING: a hidden cycle is one."""
    is_package = (ROOT / Path(*name.split(".")) / "__init__.py").exists()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = max(node.level - is_package, 0) if node.level else 0
            here = name.split(".")[: -up or None] if node.level else []
            origin = ".".join([*here, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


MODULES = {name: tree for package in PACKAGES for name, tree in sources(package).items()}
PURE = [name for name in MODULES if name.startswith("crdt") and not name.startswith("crdt.store")]


def package_of(name: str) -> str:
    return name.partition(".")[0]


def module_of(used: str) -> str:
    """The module of ours that an imported name is, or is in; empty when it is not ours."""
    while used and used not in MODULES:
        used = used.rpartition(".")[0]
    return used


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_where_they_may(package: str) -> None:
    """edge -> crdt, hardware; hub -> crdt; edge and hub never each other."""
    for name, tree in sources(package).items():
        used = {package_of(each) for each in imports(name, tree)}
        ours = used & {*PACKAGES, "tests"}
        assert ours <= ALLOWED[package], f"{name} may not import {ours - ALLOWED[package]}"


def test_there_are_no_import_cycles() -> None:
    graph = {
        name: {module_of(used) for used in imports(name, tree)} - {name, ""} for name, tree in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())


def reached_from(package: str) -> set[str]:
    """The modules of the store that this package imports, and those that these do."""
    found: set[str] = set()
    left = [module_of(used) for name, tree in sources(package).items() for used in imports(name, tree)]
    while left:
        name = left.pop()
        if name.startswith("crdt.store.") and name not in found:
            found.add(name)
            left += map(module_of, imports(name, MODULES[name]))
    return {name.rpartition(".")[2] for name in found}


def test_the_stores_tables_say_which_ledger_a_module_is_of() -> None:
    """crdt/store/README.md: "Neither knows the other"; every module stands in one line of its section."""
    text = (ROOT / "crdt/store/README.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    listed = [
        re.findall(r"`(\w+)\.py`", "\n".join(re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)))
        for section in sections
    ]
    terminal, hub = reached_from("edge"), reached_from("hub")
    present = {path.stem for path in (ROOT / "crdt/store").glob("*.py")} - {"__init__"}
    wanted = [terminal & hub, terminal - hub, hub - terminal, present - terminal - hub]
    assert list(map(sorted, listed)) == list(map(sorted, wanted))


@pytest.mark.parametrize("name", PURE)
def test_crdt_outside_its_store_is_pure(name: str) -> None:
    """Free of I/O, clocks and randomness: they are parameters (invariants 2 and 9 rest on it)."""
    for used in imports(name, MODULES[name]):
        top = package_of(used)
        assert not used.startswith("crdt.store"), "what is pure does not know the store"
        if top in sys.stdlib_module_names:
            assert top in PURE_STANDARD, f"{name} imports {used}"
        elif top != "crdt":
            assert top in PURE_THIRD_PARTY, f"{name} imports {used}"


@pytest.mark.parametrize("name", PURE)
def test_crdt_outside_its_store_calls_no_io_and_no_os_randomness(name: str) -> None:
    """The doors that an import list does not show."""
    forbidden = {
        "open",
        "print",
        "input",
        "exec",
        "eval",
        "__import__",
        "urandom",
        "generate",
        "random_actor_id",
    }
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Call):
            called = node.func
            last = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            assert last not in forbidden, f"{name} calls {last}"


def test_money_is_never_a_float_in_crdt() -> None:
    """Invariant 3: the one place where a float passes is a status's JSON, which decides nothing."""
    for name in PURE:
        floats = [
            node
            for node in ast.walk(MODULES[name])
            if (isinstance(node, ast.Constant) and isinstance(node.value, float))
            or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
            or (isinstance(node, ast.Name) and node.id == "float")
        ]
        assert not floats, f"{name}, line {floats[0].lineno}"
