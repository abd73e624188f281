"""How the programs begin: soon, and with nothing of themselves for the garbage collector to look at."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge.program import Bus
from tests.repository import ROOT

SEEN = "lambda *_: print(gc.isenabled(), gc.get_freeze_count() > 50_000 > len(gc.get_objects()))"
BEGINS = {
    "edge": f"import edge.app; edge.app.run = {SEEN}; main(['--settings', sys.argv[1]])",
    "hub": f"import hub.cli; hub.cli.main = {SEEN}; main()",
}


def python(program: str, *arguments: str) -> str:
    """What a program of its own prints."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.mark.parametrize("name", BEGINS)
def test_what_a_program_consists_of_is_never_searched_for_garbage(name: str, tmp_path: Path) -> None:
    """A full search of it is 40 ms of x86, and no tap is decided in it; what comes later is searched."""
    Bus(tmp_path).configure()
    begin = f"import gc, sys; from {name}.__main__ import main; {BEGINS[name]}"
    assert python(begin, str(tmp_path / "edge.toml")) == "True True\n"


def test_wrong_settings_are_refused_before_anything_of_the_terminal_is_there(tmp_path: Path) -> None:
    """A Pi takes seconds for it."""
    begin = "import sys; from edge.__main__ import main; print(main(sys.argv[1:]), 'edge.app' in sys.modules)"
    assert python(begin, "--settings", str(tmp_path / "none.toml")) == "78 False\n"


def test_ctrl_c_while_the_hub_is_imported_is_a_sentence() -> None:
    """A Pi imports for seconds."""
    interrupted = "type('Finder', (), {'find_spec': lambda name, *_: signal.raise_signal(signal.SIGINT)})"
    begin = "import signal, sys; from hub.__main__ import main"
    begin += f"; sys.meta_path.insert(0, {interrupted}); sys.exit(main())"
    command = [sys.executable, "-c", begin]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "farebox-hub: Stopped before it began.\n")
