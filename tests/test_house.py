"""The repository is what the README and the packaging say it is."""

import ast
import configparser
import fnmatch
import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from tests.conftest import LONGEST_FIRST
from tests.repository import ROOT, readme_commands, repository_files

TOP = {
    *("edge", "hub", "crdt", "hardware", "systemd", "tests"),
    *("setup.cfg", "README.md", "pyproject.toml", "LICENSE", "CHANGELOG.md"),
    *(".ci", ".gitignore"),
}
PACKAGES = ("crdt", "edge", "hardware", "hub")
DOCUMENTED = (*PACKAGES, "systemd", "tests")


@pytest.fixture(scope="module")
def files() -> list[PurePosixPath]:
    return repository_files()


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_top_level_is_as_agreed(files: list[PurePosixPath]) -> None:
    """Issue: "nothing else at the top"."""
    assert {path.parts[0] for path in files} == TOP


def test_systemd_is_no_package(files: list[PurePosixPath]) -> None:
    """It would hide the installed `systemd` package."""
    assert not [path for path in files if path.parts[0] == "systemd" and path.suffix == ".py"]


@pytest.mark.parametrize("directory", DOCUMENTED)
def test_directory_has_a_readme(directory: str) -> None:
    readme = ROOT / directory / "README.md"
    assert readme.read_text(encoding="utf-8").startswith("# ")


def test_every_file_of_a_package_is_installed(
    files: list[PurePosixPath], setup: configparser.ConfigParser
) -> None:
    """A wheel holds what a checkout holds: modules lie in packages, other files match package_data."""
    patterns = [pattern.strip() for pattern in setup["options.package_data"]["*"].split(",")]
    for path in files:
        if path.parts[0] not in PACKAGES or path.name == "README.md":
            continue
        if path.suffix == ".py":
            assert path.parent / "__init__.py" in files, f"{path} lies in a directory without __init__.py"
        else:
            package = next(parent for parent in path.parents if parent / "__init__.py" in files)
            inside = str(path.relative_to(package))
            assert any(fnmatch.fnmatch(inside, pattern) for pattern in patterns), f"{path} is not installed"


def test_what_is_imported_is_declared(setup: configparser.ConfigParser) -> None:
    """A fresh install has all that the packages import, also what another dependency happens to bring."""
    extras = setup["options.extras_require"]
    rows = [setup["options"]["install_requires"], extras["pi"], extras["pysqlcipher3"]]
    requirements = "\n".join(rows).split("\n")
    declared = {canonical(re.split(r"[<>=!;\[ ]", row.strip())[0]) for row in requirements}
    distributions = importlib.metadata.packages_distributions()
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        for module in top_level_imports(path) - sys.stdlib_module_names - {*PACKAGES}:
            brought_by = {canonical(name) for name in distributions.get(module, [module])}
            assert brought_by & declared, f"{path.relative_to(ROOT)} imports {module}, not in setup.cfg"


def canonical(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def top_level_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def console_scripts() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    rows = parser["options.entry_points"]["console_scripts"].strip().split("\n")
    return {name.strip(): target.strip() for name, _, target in (row.partition("=") for row in rows)}


def test_console_scripts_are_the_three() -> None:
    assert set(console_scripts()) == {"farebox-hub", "farebox-edge", "farebox-tech"}


@pytest.mark.parametrize("script", console_scripts())
def test_console_script_resolves(script: str) -> None:
    module, _, function = console_scripts()[script].partition(":")
    main: Callable[[], int] = getattr(importlib.import_module(module), function)
    assert callable(main)


@pytest.mark.parametrize("module", ["hub", "edge", "hardware.emulator"])
def test_module_runs_as_a_program(module: str) -> None:
    """Issue: "also `python -m hub`, `python -m edge`"; `python -m hardware.emulator`."""
    ran = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    assert "usage:" in ran.stdout.lower()


@pytest.mark.parametrize("script", console_scripts())
def test_console_script_explains_itself(script: str) -> None:
    program = Path(sys.executable).with_name(script)
    ran = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "usage:" in ran.stdout.lower()


def test_readme_gives_two_commands_of_one_line() -> None:
    """Issue: "then the two commands, each one line to paste"."""
    demo, tests = readme_commands()
    assert "\n" not in demo
    assert demo.endswith(".venv/bin/farebox-hub demo")
    assert tests == "tests/run"


def test_ci_runs_exactly_what_the_readme_says() -> None:
    """Issue: "`.ci/run` calls exactly this"."""
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ['exec "$(dirname "$0")/../tests/run" "$@"']


def test_python_range_is_the_same_everywhere(setup: configparser.ConfigParser) -> None:
    """3.11 and 3.12: setup.cfg refuses the others, tests/run looks for these, the README says so."""
    assert setup["options"]["python_requires"] == ">=3.11,<3.13"
    assert "(3, 11) <= sys.version_info < (3, 13)" in (ROOT / "tests/run").read_text(encoding="utf-8")
    assert "Python 3.11 or 3.12" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("directory", [".", "crdt/store", *DOCUMENTED])
def test_links_between_pages_lead_somewhere(directory: str) -> None:
    """A link in a README points to a file that is there."""
    text = (ROOT / directory / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (ROOT / directory / target).exists(), target


@pytest.mark.parametrize(
    ("directory", "page"),
    [
        *((name, f"{name}/README.md") for name in (*PACKAGES, "crdt/store", "hub/demo")),
        ("hub/pages", "hub/README.md"),
        ("hardware/emulator", "hardware/README.md"),
    ],
)
def test_the_readme_names_every_file(directory: str, page: str) -> None:
    """ "Files, in reading order": a newcomer finds each."""
    named = re.findall(r"`(?:\w+/)?(\w+\.py)`", (ROOT / page).read_text(encoding="utf-8"))
    assert {path.name for path in (ROOT / directory).glob("*.py")} - {"__init__.py"} <= {*named}


@pytest.mark.parametrize("name", LONGEST_FIRST)
def test_a_file_that_is_begun_first_is_there(name: str) -> None:
    """Else it is begun at the end, and one core waits for it."""
    assert (ROOT / name).is_file()


def invariants() -> dict[int, list[str]]:
    """The table in tests/README.md: each invariant's tests, as "file::function"."""
    text = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)
    return {int(number): re.findall(r"`([^`]+)`", names) for number, names in rows}


def test_every_invariant_of_the_ledger_has_tests() -> None:
    """Issue 3: "invariants 1-11 each named in a test"."""
    assert list(invariants()) == [*range(1, 12)]
    assert all(invariants().values())


@pytest.mark.parametrize(("number", "names"), invariants().items())
def test_the_tests_of_an_invariant_are_there_and_name_it(number: int, names: list[str]) -> None:
    """By its number, in their name or in the sentence under it."""
    for name in names:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        (found,) = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
        ]
        words = f"{function.replace('_', ' ')} {ast.get_docstring(found) or ''}"
        assert re.search(rf"[Ii]nvariants?\b[\d, and]*\b{number}\b", words), name
