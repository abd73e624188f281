"""A wrong setting stops the start with a sentence of file, key and expectation; the README lists all."""

import re
from pathlib import Path

import pytest

from hub import settings
from hub.errors import SettingsError
from hub.settings import HubSettings, load, table

README = Path(settings.__file__).with_name("README.md")


def load_text(directory: Path, text: str) -> HubSettings:
    file = directory / "hub.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def test_what_the_file_says_wins_and_the_rest_is_default(tmp_path: Path) -> None:
    loaded = load_text(
        tmp_path, 'state_directory = "state"\n[server]\nport = 9443\n[announce]\nenabled = false\n'
    )
    assert (loaded.port, loaded.announce, loaded.connections) == (9443, False, HubSettings().connections)
    assert loaded.state_directory == tmp_path / "state"
    assert loaded.key_file == Path("/etc/farebox/hub.key")


@pytest.mark.parametrize(
    ("text", "key", "expectation"),
    [
        ("[server]\nport = 70000\n", "server.port", "a whole number from 0 to 65535"),
        ('[server]\nport = "8443"\n', "server.port", "a whole number from 0 to 65535"),
        ("[server]\nport = true\n", "server.port", "a whole number from 0 to 65535"),
        ("[server]\nport = 8443.0\n", "server.port", "a whole number from 0 to 65535"),
        ("[server]\nhost = 1\n", "server.host", "an address in quotes"),
        ("[announce]\nenabled = 1\n", "announce.enabled", "true or false"),
        ('[announce]\ninterfaces = "eth0"\n', "announce.interfaces", "a list of addresses"),
        ('[announce]\nname = "a\\nb"\n', "announce.name", "printable"),
        ("state_directory = 3\n", "state_directory", "a path of at most"),
        (f'state_directory = "{"d" * 200}"\n', "state_directory", "a path of at most"),
        ('[log]\nlevel = "loud"\n', "log.level", 'one of "debug", "info", "warning", "error"'),
        ("[server]\nprot = 1\n", "server.prot", "there is no setting"),
        ("server = 1\n", "server", "there is no setting"),
        ("[server\n", "hub.toml", "not valid TOML"),
        ("server.port = " + "1" * 5000, "hub.toml", "not valid TOML"),
        ("server.port = 0x" + "f" * 5000, "server.port", "is a huge number, but must be a whole number"),
        ("server.port = " + "[" * 20_000, "hub.toml", "nested too deeply"),
        ("#" * 70_000, "hub.toml", "larger than 65536 bytes"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file_and_what_was_expected(
    tmp_path: Path, text: str, key: str, expectation: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_text(tmp_path, text)
    assert len(str(caught.value)) < 2000
    for part in (str(tmp_path / "hub.toml"), key, expectation):
        assert part in str(caught.value)


def test_a_long_path_before_a_relative_directory_counts(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    with pytest.raises(SettingsError, match="state_directory is .* but must be a path of at most 90 bytes"):
        load_text(deep, 'state_directory = "state"\n')


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="farebox-hub init --settings"):
        load(tmp_path / "hub.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "hub.toml")


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| `(.*?)` \| (.*?) \|$", README.read_text(encoding="utf-8"), re.M)
    assert rows == [(name, toml(default), text) for name, default, text in table()]


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    return "[]" if value == () else f'"{value}"'
