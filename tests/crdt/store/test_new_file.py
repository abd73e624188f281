"""A file has its name when all of it is on the disk: no half looks like a whole, and no other is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from crdt.store.new_file import new_file
from tests.repository import ROOT

HOLDING = """\
import sys
from pathlib import Path
from crdt.store.new_file import new_file
with new_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    print("begun", flush=True)
    sys.stdin.read()
"""


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


def test_it_appears_whole_and_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "copy"
    with new_file(file) as opened:
        assert opened.write(b"who rode where") == 14
        assert not file.exists()
    assert file.read_bytes() == b"who rode where"
    assert file.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["copy"]


def test_nothing_is_left_of_one_that_breaks_off(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_file(tmp_path / "copy") as opened:
        opened.write(b"half")
        raise RuntimeError
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "directory", "link to nowhere"])
@pytest.mark.parametrize("meanwhile", [False, True])
def test_what_has_the_name_is_not_touched(kind: str, meanwhile: bool, tmp_path: Path) -> None:
    """Also where it came while the file was written."""
    name = tmp_path / "copy"

    def take() -> None:
        match kind:
            case "file":
                name.write_bytes(b"another's")
            case "directory":
                name.mkdir()
            case _:
                name.symlink_to(tmp_path / "unmounted" / "copy")

    if not meanwhile:
        take()
    with pytest.raises(FileExistsError), new_file(name) as opened:
        opened.write(b"ours")
        take()
    assert (name.is_symlink(), name.is_dir()) == (kind == "link to nowhere", kind == "directory")
    assert kind != "file" or name.read_bytes() == b"another's"
    assert names(tmp_path) == ["copy"]


def test_another_process_that_writes_it_goes_on_and_one_that_was_killed_is_in_nobodys_way(
    tmp_path: Path,
) -> None:
    """Whoever ended first would give the name to the other's half."""
    name = tmp_path / "copy"
    command = [sys.executable, "-c", HOLDING, str(name)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"begun\n"
        with pytest.raises(BlockingIOError), new_file(name):
            pass
        assert names(tmp_path) == [".copy.part"]
        other.kill()
    with new_file(name) as opened:
        opened.write(b"whole")
    assert name.read_bytes() == b"whole"
    assert names(tmp_path) == ["copy"]


def test_nothing_is_written_through_a_link_that_somebody_has_laid(tmp_path: Path) -> None:
    """In a directory where everybody may write: what is in the file goes to nobody else's."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".copy.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"), new_file(tmp_path / "copy"):
        pass
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / ".copy.part").readlink() == victim
