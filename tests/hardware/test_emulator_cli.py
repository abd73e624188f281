"""`python -m hardware.emulator` as a person or another program runs it."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardware.cards import PresentedCard
from hardware.pn532 import open_reader

COMMAND = [sys.executable, "-W", "error", "-m", "hardware.emulator"]
CARD = PresentedCard(bytes.fromhex("DEADBEEF"), b"\x00\x04", 0x08)


class Cli:
    """The running program; every command is answered by one line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.path = self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def say(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.hear()


@contextlib.contextmanager
def emulator(*arguments: str) -> Iterator[Cli]:
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield Cli(process)
        finally:
            process.terminate()


def test_cards_come_and_go() -> None:
    with emulator() as cli:
        reader = open_reader(f"uart:{cli.path}")
        assert reader.poll(0.05) is None
        assert cli.say("present classic:DEADBEEF") == "present classic:DEADBEEF"
        assert reader.poll(1) == CARD
        assert cli.say("present ntag215:04A1B2C3D4E5F6") == "present ntag215:04A1B2C3D4E5F6"
        card = reader.poll(1)
        assert card is not None
        assert card.uid.hex() == "04a1b2c3d4e5f6"
        assert cli.say("remove") == "removed"
        assert reader.poll(0.05) is None
        reader.close()
        assert cli.say("quit") == "bye"
        assert cli.process.wait(10) == 0


def test_a_link_and_a_first_card(tmp_path: Path) -> None:
    link = tmp_path / "reader"
    link.symlink_to("/nowhere")  # left by one that was killed
    with emulator("--link", str(link), "--card", "classic:DEADBEEF") as cli:
        assert cli.path == str(link)
        assert str(link.readlink()).startswith("/dev/pts/")
        reader = open_reader(f"uart:{link}")
        assert reader.poll(1) == CARD
        reader.close()
        cli.say("quit")
        cli.process.wait(10)
    assert not link.is_symlink()


def test_a_fault_on_demand() -> None:
    with emulator("--card", "classic:DEADBEEF") as cli:
        reader = open_reader(f"uart:{cli.path}")
        assert cli.say("fault truncate") == "fault truncate"
        assert reader.poll(1) is None
        assert reader.poll(1) == CARD
        reader.close()


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("present banana:00", 'error: "banana" is no kind of card'),
        ("present", 'error: "present" is none of: present SPEC'),
        ("eat", 'error: "eat" is none of: present SPEC'),
        ("fault banana", 'error: "fault banana" is none of'),
        ("x" * 5000, "error: "),
    ],
)
def test_bad_commands_are_answered_and_survived(command: str, answer: str) -> None:
    with emulator() as cli:
        assert cli.say(command).startswith(answer)
        assert cli.say("remove") == "removed"


def test_the_end_of_input_ends_it() -> None:
    with emulator() as cli:
        assert cli.process.stdin is not None
        cli.process.stdin.close()
        assert cli.process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_and_its_link(tmp_path: Path, number: signal.Signals) -> None:
    link = tmp_path / "reader"
    with emulator("--link", str(link)) as cli:
        cli.process.send_signal(number)
        assert cli.process.wait(10) == 0
    assert not link.is_symlink()


def test_what_lies_at_the_links_path_is_not_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    done = subprocess.run(
        [*COMMAND, "--link", str(precious)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "precious" in done.stderr
    assert precious.read_text() == "mine"


def test_a_bad_card_stops_the_start_with_a_sentence() -> None:
    done = subprocess.run(
        [*COMMAND, "--card", "ntag215:04"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == '"ntag215:04" cannot be read: expected a UID of 14 hex digits.\n'


def test_an_input_without_commands_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "commands").write_text("present classic:DEADBEEF\nquit\n")
    with (tmp_path / "commands").open() as commands:
        done = subprocess.run(COMMAND, stdin=commands, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == ["present classic:DEADBEEF", "bye"]


def test_importing_the_package_looks_for_no_board() -> None:
    """Blinka guesses what machine it is on when `board` is imported, and complains about a laptop."""
    program = (
        "import sys, hardware.pn532, hardware.reader, hardware.feedback, hardware.emulator.pty_line;"
        "sys.exit('board' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
