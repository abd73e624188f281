"""DESIGN: who may know whom. Read from the import statements, also those under TYPE_CHECKING.

`edge` knows `crdt` and `hardware`, `hub` knows `crdt`, nothing else crosses, nothing goes in circles, and
`crdt` without its store has no I/O, no clock and no randomness.
"""

import ast
import graphlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_KNOW: dict[str, set[str]] = {
    "crdt": set(),
    "hardware": set(),
    "edge": {"crdt", "hardware"},
    "hub": {"crdt"},
}

# Modules whose purpose is I/O, time or randomness.
IMPURE_MODULES = set(
    """aiohttp asyncio concurrent fcntl glob http io logging multiprocessing os pathlib queue random sched
    secrets select selectors serial shutil signal socket sqlalchemy sqlcipher3 sqlite3 ssl subprocess sys
    tempfile time urllib uuid zeroconf""".split()  # noqa: SIM905  (a list of 30 lines hides more than it shows)
)
IMPURE_CALLS = {"open", "print", "input"}
IMPURE_METHODS = {"generate", "generate_key", "now", "utcnow", "today", "urandom"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the four packages by its dotted name, parsed."""
    parsed = {}
    for package in MAY_KNOW:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            parsed[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return parsed


def imports(name: str) -> Iterator[str]:
    """Dotted names of everything that the module `name` imports, wherever in it the import stands."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package_of(name))
            yield from (f"{source}.{alias.name}" for alias in node.names)


def package_of(name: str) -> str:
    return name if any(other.startswith(f"{name}.") for other in modules()) else name.rpartition(".")[0]


def our_module(imported: str) -> str | None:
    """The module of ours that holds `imported`; None for anybody else's."""
    while imported and imported not in modules():
        imported = imported.rpartition(".")[0]
    return imported or None


def pure_modules() -> list[str]:
    return [name for name in modules() if name.split(".")[0] == "crdt" and name.split(".")[1:2] != ["store"]]


@pytest.mark.parametrize("package", MAY_KNOW)
def test_package_knows_only_whom_it_may(package: str) -> None:
    for name in modules():
        if name.split(".")[0] == package:
            known = {imported.split(".")[0] for imported in imports(name)} & {*MAY_KNOW, "tests"}
            assert known <= MAY_KNOW[package] | {package}, name


def test_no_import_cycles() -> None:
    graph = {
        name: {ours for imported in imports(name) if (ours := our_module(imported)) and ours != name}
        for name in modules()
    }
    list(graphlib.TopologicalSorter(graph).static_order())


def test_ledger_knows_its_store_nowhere() -> None:
    for name in pure_modules():
        assert not [imported for imported in imports(name) if imported.startswith("crdt.store")], name


def test_ledger_has_no_io_clock_or_randomness() -> None:
    """Invariant 2 needs it: the same blocks give the same bytes wherever and whenever they are joined."""
    for name in pure_modules():
        impure = {imported.split(".")[0] for imported in imports(name)} & IMPURE_MODULES
        assert not impure, f"{name} imports {impure}"
        for call in (node.func for node in ast.walk(modules()[name]) if isinstance(node, ast.Call)):
            where = f"{name}, line {call.lineno}"
            assert not (isinstance(call, ast.Name) and call.id in IMPURE_CALLS), where
            assert not (isinstance(call, ast.Attribute) and call.attr in IMPURE_METHODS), where
