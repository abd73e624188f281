"""How the programs begin: soon, and with nothing of themselves for the garbage collector to look at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge.program import Bus
from tests.hub.processes import PASSWORD, hub_process
from tests.repository import ROOT

SEEN = "lambda *_: print(gc.isenabled(), gc.get_freeze_count() > 50_000 > len(gc.get_objects()))"
BEGINS = {
    "edge": f"import edge.app; edge.app.run = {SEEN}; main(sys.argv[1:])",
    # The first thing that it does when all of it is there.
    "hub": f"sys.setswitchinterval = lambda _: sys.exit(({SEEN})()); sys.argv.insert(1, 'run'); main()",
}
SERVER = {"aiohttp", "asyncio", "crdt.store.hub", "cryptography", "hub.app", "hub.founding", "sqlalchemy"}
UID = "04A1B2C3D4E5F6"
ASKS = (
    *("invite", "cards", f"topup {UID} 5", f"cards show {UID}", "terminals", "fleet", "report"),
    *("day close 2026-01-01", "password", "backup COPY", "ledger export STICK", "ledger import STICK"),
    *("ledger forks", "ledger waiting"),
)


def python(program: str, *arguments: str) -> str:
    """What a program of its own prints."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.mark.parametrize("name", BEGINS)
def test_what_a_program_consists_of_is_never_searched_for_garbage(name: str, tmp_path: Path) -> None:
    """A full search of it is 40 ms of x86, and no tap is decided in it; what comes later is searched."""
    Bus(tmp_path).configure()
    (tmp_path / "hub.toml").touch()
    begin = f"import gc, sys; from {name}.__main__ import main; {BEGINS[name]}"
    assert python(begin, "--settings", str(tmp_path / f"{name}.toml")) == "True True\n"


@pytest.mark.parametrize(("name", "words", "status"), [("edge", [], 78), ("hub", ["run"], 1)])
def test_wrong_settings_are_refused_before_anything_of_the_program_is_there(
    name: str, words: list[str], status: int, tmp_path: Path
) -> None:
    """A Pi takes seconds for it."""
    begin = f"import sys; from {name}.__main__ import main; print(main(), '{name}.app' in sys.modules)"
    assert python(begin, *words, "--settings", str(tmp_path / "none.toml")) == f"{status} False\n"


def test_ctrl_c_while_the_hub_is_imported_is_a_sentence() -> None:
    """A Pi imports for seconds."""
    interrupted = "type('Finder', (), {'find_spec': lambda name, *_: signal.raise_signal(signal.SIGINT)})"
    begin = "import signal, sys; from hub.__main__ import main"
    begin += f"; sys.meta_path.insert(0, {interrupted}); sys.exit(main())"
    command = [sys.executable, "-c", begin]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "farebox-hub: Stopped before it began.\n")


def test_ctrl_c_while_what_only_one_command_needs_is_imported_is_the_same_sentence(tmp_path: Path) -> None:
    """That is where nearly all of the time goes."""
    (tmp_path / "hub.toml").touch()
    find_spec = "lambda name, *_: signal.raise_signal(signal.SIGINT) if name.startswith('hub.') else None"
    begin = f"import signal, sys, hub.cli; finder = type('Finder', (), {{'find_spec': {find_spec}}})"
    begin += "; sys.meta_path.insert(0, finder); sys.exit(hub.cli.main(sys.argv[1:]))"
    for arguments in (["run", "--settings", str(tmp_path / "hub.toml")], ["init"], ["demo"]):
        command = [sys.executable, "-c", begin, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert (done.returncode, done.stderr) == (130, "farebox-hub: Stopped before it began.\n"), arguments


def test_commands_that_ask_the_running_hub_import_nothing_of_it(tmp_path: Path) -> None:
    """A Pi takes seconds for it."""
    begin = f"import atexit, runpy, sys; atexit.register(lambda: print({SERVER} & {{*sys.modules}}))"
    begin += "; runpy.run_module('hub', run_name='__main__', alter_sys=True)"
    environment = {**os.environ, "FAREBOX_OPERATOR_PASSWORD": PASSWORD}
    with hub_process(tmp_path) as hub:
        hub.start()
        for command in ("--help", *ASKS):
            done = subprocess.run(
                [sys.executable, "-c", begin, *command.split(), "--settings", str(hub.settings)],
                capture_output=True,
                text=True,
                check=False,
                cwd=tmp_path,
                env=environment,
            )
            assert (done.returncode, done.stderr) == (0, ""), command
            assert done.stdout.splitlines()[-1] == "set()", command
