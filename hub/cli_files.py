"""Files out of the hub and into it, on the command line: the ledger's backup, and courier files."""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from crdt.store.new_file import new_file
from hub import settings
from hub.cli_text import Bar, say, size_text
from hub.control_client import download, unwritten, upload
from hub.daywords import entries
from hub.errors import FileTrouble


def backup(options: argparse.Namespace) -> None:
    """Copy the ledger into the file that was named."""
    size = _save(options, "/backup", "Copying")
    say(f"The ledger is copied to {options.file} ({size_text(size)}), encrypted with the hub's own key.")
    say("Keep the key with another copy, not with this one; hub/README.md says how to put both back.")


def export(options: argparse.Namespace) -> None:
    """All blocks into the courier file that was named."""
    size = _save(options, "/ledger/export", "Exporting")
    say(f"Everything the hub holds is in {options.file} ({size_text(size)}).")


def import_(options: argparse.Namespace) -> None:
    """Blocks out of the courier file that was named. FileTrouble when not all of it could be taken."""
    _tell(_imported(options), options.file)


def _imported(options: argparse.Namespace) -> dict[str, Any]:
    place = settings.load(options.settings).control_socket
    bar = Bar("Importing")
    try:
        with options.file.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            done: dict[str, Any] = upload(place, "/ledger/import", file, size, bar.show)
            return done
    except OSError as error:
        raise FileTrouble(
            f"The courier file {options.file} cannot be read: {error.strerror}. Nothing was imported. Look "
            "whether the name is right and the stick is in."
        ) from error
    finally:
        bar.end()


def _tell(done: dict[str, Any], file: Path) -> None:
    """What an import did; FileTrouble when the file is damaged or something of it was refused, at the end."""
    say(
        f"{done['blocks']:,} new blocks with {done['entries']:,} entries; {done['known']:,} were here before."
    )
    if done["refused"]:
        say(f"{_were_refused(done)}, and no balance has changed for it:")
        for sentence in done["refusals"]:
            say(f"  {sentence}")
    if done["evidence"]:
        say("Blocks of a fork, or of an author that had ended, are kept as evidence. What they are, and")
        say("whether somebody has to decide about them, says: farebox-hub ledger forks")
    if done["dropped"]:
        say(f"No room was left to keep {done['dropped']:,} of them as evidence. Which terminals those are")
        say("of, and that you should look at them, says: farebox-hub ledger forks")
    for gap in done["missing"]:
        what = entries(gap["first_seq"], gap["last_seq"])
        say(f"  missing of {gap['author']}: {what} (replica {gap['replica']})")
    if done["missing_more"]:
        say(f"  and {done['missing_more']:,} more such stretches")
    if done["missing"]:
        say("No balance counts what is missing. It comes with any terminal or courier file that has it.")
    if done["trouble"]:
        again = (
            " What is said above is in the ledger. Copy the file once more and import it again: "
            "nothing counts twice."
        )
        sentence = f"{done['trouble'][:1].upper()}{done['trouble'][1:]}."
        raise FileTrouble(sentence + again * done["damaged"])
    if done["refused"]:
        raise FileTrouble(
            f"Of {file} {_were_refused(done)}; why is said above. What else is in it is in the ledger."
        )


def _were_refused(done: dict[str, Any]) -> str:
    return "1 part was refused" if done["refused"] == 1 else f"{done['refused']:,} parts were refused"


def _save(options: argparse.Namespace, target: str, what: str) -> int:
    """Write the hub's answer to the file that was named; its size."""
    place = settings.load(options.settings).control_socket
    bar = Bar(what)
    try:
        with ExitStack() as unfinished:
            file = _begun(options.file, unfinished)
            return download(place, target, file, options.file, bar.show)
    except FileExistsError as error:
        raise FileTrouble(f"{options.file} is there already and was not touched. Name another.") from error
    except OSError as error:
        raise unwritten(options.file, error) from error
    finally:
        bar.end()


def _begun(name: Path, unfinished: ExitStack) -> BinaryIO:
    """A file that appears as `name` when the stack ends well."""
    try:
        return unfinished.enter_context(new_file(name))
    except FileExistsError:  # as when the name is taken while it is written
        raise
    except BlockingIOError as error:
        raise FileTrouble(f"Another command is writing {name}. Wait for it, or name another.") from error
    except OSError as error:
        raise FileTrouble(
            f"{name} cannot be made: {error.strerror}. Nothing was written. Look whether its "
            "directory is there, is not write-protected, and you may write there."
        ) from error
