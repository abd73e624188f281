"""The README's first command, as a newcomer pastes it, in a fresh copy of the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import missing
from tests.repository import ROOT, readme_commands, repository_files
from tests.roots import machines_roots


@pytest.fixture
def fresh_clone(tmp_path: Path) -> Path:
    """What git would hand out, uncommitted changes included; no venv, nothing built."""
    for name in repository_files():
        target = tmp_path / "farebox" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return tmp_path / "farebox"


def newcomers_environment(home: Path) -> dict[str, str]:
    """A machine whose python3 is the one under test, without its venv; nothing was ever downloaded."""
    known = ("PATH", "LANG", "PIP_CERT", "HTTPS_PROXY", "https_proxy")
    environment = {name: os.environ[name] for name in known if name in os.environ}
    environment |= machines_roots()
    programs = home / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
    path = f"{programs}:{environment.get('PATH', os.defpath)}"
    return environment | {"PATH": path, "HOME": str(home), "PIP_CACHE_DIR": str(home / "pip-cache")}


@pytest.mark.timeout(420)
def test_first_command_makes_a_venv_installs_and_plays_the_demo(fresh_clone: Path, tmp_path: Path) -> None:
    """Issue: the main job "makes a venv, installs, and runs `farebox-hub demo`", from an empty pip cache.

    Only `--headless --seconds 5` is added, so that it ends by itself; "prints [...] `books balance: yes`, and
    exits 0 only if every ledger agrees and nothing acknowledged was lost".
    """
    command = f"{readme_commands()[0]} --headless --seconds 5"
    ran = subprocess.run(
        ["sh", "-c", command],
        cwd=fresh_clone,
        env=newcomers_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if "Could not fetch URL" in ran.stderr or "Temporary failure in name resolution" in ran.stderr:
        missing("the package index cannot be reached: needed to install as a newcomer does")
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert "books balance: yes" in ran.stdout
