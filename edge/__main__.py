"""farebox-edge: the terminal's program. `farebox-edge --settings FILE`, also `python -m edge`."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from crdt.errors import LedgerBusy, LedgerError, StoreFailed
from edge.errors import INTERRUPTED, EdgeError, SettingsError
from edge.settings import Settings, load_settings

# sysexits.h: a service manager can tell what a restart may mend.
EX_UNAVAILABLE, EX_IOERR, EX_TEMPFAIL, EX_CONFIG = 69, 74, 75, 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the terminal until it is told to stop; returns the exit code. 130: by Ctrl-C before it ran."""
    parser = argparse.ArgumentParser(prog="farebox-edge", description="Takes taps at one door of one bus.")
    parser.add_argument(
        "--settings", type=Path, required=True, help="the TOML file described in edge/README.md"
    )
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(options.settings)
        _log_to_stderr(settings.log_level)
        _run(settings)
    except (EdgeError, LedgerError) as error:
        sys.stderr.write(f"farebox-edge: {error}\n")
        return exit_code(error)
    except KeyboardInterrupt:  # once it runs, it stops by itself, with 0
        sys.stderr.write("farebox-edge: Stopped before it took taps.\n")
        return INTERRUPTED
    return 0


def _run(settings: Settings) -> None:
    """Run the terminal until it is told to stop."""
    # Nothing of what is imported is ever garbage: it is not searched for some, neither now nor later, when a
    # search would hold up a tap.
    gc.disable()
    from edge.app import run

    gc.freeze()
    gc.enable()
    run(settings, os.environ)


def exit_code(error: EdgeError | LedgerError) -> int:
    """What the process ends with: 78 wrong set-up, 75 ledger in use, 74 the disk, 69 the rest."""
    match error:
        case LedgerBusy():
            return EX_TEMPFAIL
        case StoreFailed():
            return EX_IOERR
        case SettingsError() | LedgerError():
            return EX_CONFIG
        case _:
            return EX_UNAVAILABLE


def _log_to_stderr(level: str) -> None:
    # Under systemd the journal has the time already.
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(stream=sys.stderr, format=f"{stamp}%(levelname)s %(name)s: %(message)s")
    logging.getLogger("edge").setLevel(level.upper())
    logging.getLogger("hardware").setLevel(level.upper())


if __name__ == "__main__":
    sys.exit(main())
