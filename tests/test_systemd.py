"""Issue: "`farebox-edge.service`, `farebox-hub.service` that pass `systemd-analyze verify`"."""

import configparser
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.needs import missing, needs_program

SYSTEMD = Path(__file__).parent.parent / "systemd"
UNITS = ("farebox-edge.service", "farebox-hub.service")

# The exposure that `systemd-analyze security` gives, in tenths. Higher means that a protection was lost.
HIGHEST_EXPOSURE = {"farebox-edge.service": 15, "farebox-hub.service": 11}

INSTALLED_AT = "/opt/farebox/venv/bin/"


def read_unit(name: str) -> dict[str, list[str]]:
    """Every assignment of a unit: key to its values in order."""
    assignments: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            assignments.setdefault(key, []).append(value)
    return assignments


@pytest.fixture(scope="module")
def analyze() -> Path:
    program = needs_program("systemd-analyze", "check the unit files")
    if os.geteuid() != 0 and not Path("/run/systemd").exists():
        missing("systemd does not run here and only root may make /run/systemd: needed by systemd-analyze")
    return program


@pytest.mark.parametrize("name", UNITS)
def test_unit_passes_verify(name: str, analyze: Path, tmp_path: Path) -> None:
    """As installed: only the directory of the programs is this environment's instead of /opt's.

    `verify` returns 0 on an unknown setting, so anything it says is a failure.
    """
    unit = tmp_path / name
    text = (SYSTEMD / name).read_text(encoding="utf-8")
    unit.write_text(text.replace(INSTALLED_AT, sysconfig.get_path("scripts") + "/"), encoding="utf-8")
    ran = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("name", UNITS)
def test_unit_is_as_closed_as_it_can_be(name: str, analyze: Path) -> None:
    """The sandbox does not lose a protection unnoticed."""
    threshold = f"--threshold={HIGHEST_EXPOSURE[name]}"
    ran = subprocess.run(
        [analyze, "security", "--offline=true", threshold, "--no-pager", SYSTEMD / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", UNITS)
def test_unit_runs_an_installed_program(name: str) -> None:
    """Each unit starts a console script that setup.cfg declares."""
    setup = configparser.ConfigParser()
    setup.read(SYSTEMD.parent / "setup.cfg", encoding="utf-8")
    declared = setup["options.entry_points"]["console_scripts"].splitlines()
    scripts = {line.partition("=")[0].strip() for line in declared}
    program = read_unit(name)["ExecStart"][0].split()[0]
    assert program.startswith(INSTALLED_AT)
    assert program.removeprefix(INSTALLED_AT) in scripts


@pytest.mark.parametrize("name", UNITS)
def test_unit_never_gives_up_and_waits_for_no_clock(name: str) -> None:
    """A bus without network or time still takes taps (invariants 7 and 9)."""
    unit = read_unit(name)
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    waited_for = " ".join(unit["After"] + unit.get("Requires", []) + unit.get("Wants", []))
    assert "time-set.target" in waited_for
    assert "time-sync.target" not in waited_for
    assert "network-online.target" not in waited_for


def test_users_of_the_units_are_made(tmp_path: Path) -> None:
    """sysusers makes every user and group that the units name."""
    sysusers = needs_program("systemd-sysusers", "make the users of the units")
    (tmp_path / "etc").mkdir()
    subprocess.run([sysusers, f"--root={tmp_path}", SYSTEMD / "farebox-sysusers.conf"], check=True)
    users = {line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0] for line in (tmp_path / "etc/group").read_text().splitlines()}
    for name in UNITS:
        unit = read_unit(name)
        assert set(unit["User"]) <= users
        wanted = {*unit["Group"], *" ".join(unit.get("SupplementaryGroups", [])).split()}
        assert wanted <= groups | {"dialout"}, "dialout is in every Debian"


def test_key_lies_outside_the_state_directory() -> None:
    """A copied database is no use without the key, which systemd hands over from elsewhere."""
    for name in UNITS:
        unit = read_unit(name)
        credential, path = unit["LoadCredential"][0].split(":")
        assert credential == "farebox-ledger-key"
        assert not path.startswith("/var/lib/")
        assert path.endswith(".key")
