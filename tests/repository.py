"""What the tests of the repository itself read from it."""

import re
import subprocess
from pathlib import Path, PurePosixPath

from tests.needs import missing, needs_program

ROOT = Path(__file__).parent.parent


def repository_files() -> list[PurePosixPath]:
    """Every file that is or would be committed, relative to the root."""
    git = needs_program("git", "list the files of the repository")
    if not (ROOT / ".git").exists():
        missing("this is no git checkout: needed to list the files of the repository")
    listing = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    ran = subprocess.run([str(git), "-C", str(ROOT), *listing], capture_output=True, text=True, check=True)
    return [PurePosixPath(name) for name in ran.stdout.split("\0") if name and (ROOT / name).is_file()]


def readme_commands() -> list[str]:
    """The README's first two command blocks: the demo, and the tests."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [block.strip() for block in blocks[:2]]
