"""Issue: "A test whose component cannot be had is skipped with the reason, but fails when CI is set"."""

import shutil

import pytest

from tests.needs import debian_packages, needs_module, needs_program


def test_program_that_is_here_is_found() -> None:
    assert str(needs_program("sh", "run this test")) == shutil.which("sh")


def test_missing_program_skips_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed: needed to see this"):
        needs_program("no-such-program", "see this")


def test_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        needs_program("no-such-program", "see this")


def test_missing_program_names_its_debian_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(pytest.skip.Exception, match=r"apt-get install systemd\)"):
        needs_program("systemd-analyze", "check units")


def test_missing_module_skips_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no_such_module cannot be imported"):
        needs_module("no_such_module", "see this")


def test_table_names_the_browser() -> None:
    assert debian_packages()["chromium"] == "chromium"
