"""python -m hardware.emulator: a PN532 on a pty; lines on standard input put cards on and take them off."""

import argparse
import os
import signal
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from hardware.emulator.faults import Fault
from hardware.emulator.pty_line import PtyLine
from hardware.emulator.specs import KINDS
from hardware.errors import HardwareError

_EPILOG = f"""\
The first line of output is the path to open. Then one line on standard input is one command, answered by one
line: present SPEC, remove, fault NAME, quit. The end of standard input is quit too.

SPEC is KIND:UID in hex (kinds: {", ".join(KINDS)}), such as ntag215:04A1B2C3D4E5F6 or
classic:DEADBEEF; iso14443a takes UID:ATQA:SAK[:ATS].
NAME is one of {", ".join(fault.value for fault in Fault)}.
"""
_CHUNK_BYTES = 4096
_MAX_LINE_BYTES = 1024


class Console:
    """Commands on standard input, answers on standard output."""

    def __init__(self, line: PtyLine, descriptor: int) -> None:
        self._line = line
        self._descriptor = descriptor
        self._buffer = b""

    def read(self) -> None:
        """Take what is there and do it."""
        data = os.read(self._descriptor, _CHUNK_BYTES)
        if not data:
            self._line.stop()
        *commands, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[-_MAX_LINE_BYTES:]
        for command in commands:
            self._answer(command.decode(errors="replace").strip())

    def _answer(self, command: str) -> None:
        try:
            said = self._do(command)
        except HardwareError as error:
            said = f"error: {error}"
        if said:
            _say(said)

    def _do(self, command: str) -> str:
        name, _, argument = command.partition(" ")
        match name, argument.strip():
            case "", "":
                return ""
            case "present", spec if spec:
                self._line.present(spec)
                return f"present {spec}"
            case "remove", "":
                self._line.remove()
                return "removed"
            case "fault", fault if fault in {known.value for known in Fault}:
                self._line.inject(Fault(fault))
                return f"fault {fault}"
            case "quit", "":
                self._line.stop()
                return "bye"
        return f'error: "{command}" is none of: present SPEC, remove, fault NAME, quit.'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to quit; the exit status is 2 when an argument cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m hardware.emulator",
        description="A PN532 card reader on a pty.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--link", type=Path, metavar="PATH", help="make PATH a link to the pty, while it lasts"
    )
    parser.add_argument("--card", metavar="SPEC", help="a card that lies on the reader from the start")
    options = parser.parse_args(arguments)
    line = PtyLine()
    try:
        if options.card:
            line.present(options.card)
        if options.link:
            _link(options.link, line.path)
        _serve(line, str(options.link or line.path))
    except (HardwareError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        if options.link:
            _unlink(options.link, line.path)
        line.close()
    return 0


def _serve(line: PtyLine, path: str) -> None:
    def stop(_signal: int, _frame: types.FrameType | None) -> None:
        line.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    _say(path)
    console = Console(line, sys.stdin.fileno())
    line.serve(console._descriptor, console.read)


def _link(link: Path, target: str) -> None:
    """Point `link` at the pty; an older link goes, anything else stays and is an error."""
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target)


def _unlink(link: Path, target: str) -> None:
    # Another emulator may have taken the path over by now.
    if link.is_symlink() and str(link.readlink()) == target:
        link.unlink()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
