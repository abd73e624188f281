"""The settings file: what is good is taken, what is not stops the start with one sentence."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.addresses import HubAddress
from edge.errors import SettingsError
from edge.settings import MAX_FILE_BYTES, SETTINGS, Settings, check_settings, load_settings

README = Path(__file__).parents[2] / "edge" / "README.md"
LEAST = {"terminal": {"name": "Bus 12 front"}}


def refused(tmp_path: Path, text: str | bytes) -> str:
    file = tmp_path / "edge.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    sentence = str(caught.value)
    assert sentence.startswith(f"{file}: "), "the sentence names the file"
    assert "\n" not in sentence
    return sentence.removeprefix(f"{file}: ")


def test_a_complete_file_is_taken_and_relative_paths_count_from_it(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(
        """
        state_directory = "state"
        [terminal]
        name = "Bus 12 front"
        route = "12"
        [store]
        key_file = "ledger.key"
        [reader]
        device = "uart:/dev/pts/7"
        [hub]
        address = "[2001:db8::7]:9443"
        [uplink]
        proxy = "http://127.0.0.1:3128"
        backoff_min_s = 2
        """
    )
    settings = load_settings(file)
    assert settings.state_directory == tmp_path / "state"
    assert settings.control_socket == tmp_path / "state" / "control.sock"
    assert settings.store_key_file == tmp_path / "ledger.key"
    assert settings.terminal_route == "12"
    assert settings.hub_address == HubAddress("2001:db8::7", 9443)
    assert settings.uplink_backoff_min_s == 2.0
    assert settings.discovery_enabled is True


def test_the_table_and_the_dataclass_hold_the_same_settings() -> None:
    assert [row.field for row in SETTINGS] == [field.name for field in dataclasses.fields(Settings)]


def test_every_default_passes_its_own_check() -> None:
    assert check_settings(Path("edge.toml"), LEAST).terminal_name == "Bus 12 front"


def test_the_readme_lists_exactly_the_table() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.*?) \|$", README.read_text(), re.MULTILINE)
    expected = [
        (row.name, "(required)" if row.default is None else f"`{json.dumps(row.default)}`", row.help)
        for row in SETTINGS
    ]
    assert rows == expected


def test_a_missing_name_is_asked_for(tmp_path: Path) -> None:
    assert refused(tmp_path, "").startswith("terminal.name is missing.")


def test_a_misspelt_setting_is_named_and_the_right_one_suggested(tmp_path: Path) -> None:
    sentence = refused(tmp_path, '[terminal]\nname = "a"\n[uplink]\nprox = ""\n')
    assert sentence == "there is no setting uplink.prox; did you mean uplink.proxy?"


def test_an_unknown_setting_points_to_the_list(tmp_path: Path) -> None:
    sentence = refused(tmp_path, '[terminal]\nname = "a"\n[zzz]\nqqq = 1\n')
    assert sentence == "there is no setting zzz; edge/README.md lists all settings."


@pytest.mark.parametrize(
    ("setting", "value", "expectation"),
    [
        ("state_directory", "7", "a path, not 7."),
        ("state_directory", '"/' + "x" * 90 + '"', "a path of at most 90 bytes"),
        ("terminal.name", '""', 'text of 1 to 64 bytes without control characters, not "".'),
        ("terminal.name", '"a\\u0007b"', "without control characters"),
        ("terminal.route", '"' + "é" * 33 + '"', "text of 0 to 64 bytes"),
        ("reader.device", '"usb"', '"i2c" or "spi:CE0", with ",reset=PIN" where that is wired, not "usb".'),
        ("reader.device", '"uart:/dev/x,reset=99"', "reset=PIN"),
        ("reader.device", "1", ", not 1."),
        ("feedback.device", '"led"', '"console" or "none", not "led".'),
        ("hub.address", '"ftp://hub"', "an address such as"),
        ("hub.address", "8443", "an address such as"),
        ("discovery.enabled", '"yes"', 'true or false, not "yes".'),
        ("uplink.proxy", '"127.0.0.1:3128"', 'a URL such as "http://127.0.0.1:3128"'),
        ("uplink.proxy", '"http://[::1"', "a URL such as"),
        ("uplink.backoff_min_s", '"fast"', 'a number of seconds from 0.05 to 3600, not "fast".'),
        ("uplink.backoff_min_s", "true", "a number of seconds from 0.05 to 3600, not True."),
        ("uplink.backoff_min_s", "nan", "a number of seconds from 0.05 to 3600, not nan."),
        ("uplink.heartbeat_s", "-1", "a number of seconds from 1 to 86400, not -1."),
        ("log.level", '"loud"', "one of"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(
    tmp_path: Path, setting: str, value: str, expectation: str
) -> None:
    table, _, key = setting.rpartition(".")
    lines = {"": [], "terminal": ['name = "a"']}
    lines.setdefault(table, [])
    lines[table] = [line for line in lines[table] if not line.startswith(f"{key} ")] + [f"{key} = {value}"]
    text = "\n".join("\n".join([f"[{name}]"] * bool(name) + content) for name, content in lines.items())
    sentence = refused(tmp_path, text)
    assert sentence.startswith(f"{setting} must be ")
    assert expectation in sentence


def test_a_value_where_a_table_belongs(tmp_path: Path) -> None:
    assert refused(tmp_path, 'terminal = "bus"') == 'terminal must be a table, [terminal], not "bus".'


def test_backoff_bounds_must_not_cross(tmp_path: Path) -> None:
    text = '[terminal]\nname = "a"\n[uplink]\nbackoff_min_s = 9\nbackoff_max_s = 3'
    assert refused(tmp_path, text) == "uplink.backoff_max_s must be at least uplink.backoff_min_s (9)."


def test_the_key_never_lies_in_the_state_directory(tmp_path: Path) -> None:
    text = 'state_directory = "s"\n[terminal]\nname = "a"\n[store]\nkey_file = "s/sub/key"'
    assert refused(tmp_path, text).startswith("store.key_file must lie outside state_directory")


@pytest.mark.parametrize(
    "text",
    [
        f"x = {'1' * 5_000}",
        f"x = 0x{'f' * 5_000}",
        f"[terminal]\nname = 0x{'f' * 5_000}",
        f"[uplink]\nheartbeat_s = 0x{'f' * 5_000}",
        f"[reader]\ndevice = [0x{'f' * 5_000}]",
        "x = " + "[" * 20_000,
        "a." * 3_000 + "a = 1",
        "terminal.name." + "a." * 3_000 + "a = 1",
    ],
    ids=lambda text: text[:24],
)
def test_numbers_and_tables_beyond_all_measure_are_refused(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the settings file cannot be read \(No such file"):
        load_settings(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"[terminal", "the settings file is not TOML"),
        (b"\xff\xfe", "the settings file is no UTF-8 text"),
        (b"a = " + b"[" * 20_000, "the settings file is not TOML"),
        (b"#" * (MAX_FILE_BYTES + 1), "the settings file is larger than"),
    ],
)
def test_garbage_truncated_and_oversized_files_are_refused(tmp_path: Path, raw: bytes, says: str) -> None:
    """Invariant 8: whatever the file holds, the answer is a sentence."""
    assert refused(tmp_path, raw).startswith(says)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_cause_anything_but_a_sentence(raw: bytes) -> None:
    """Invariant 8, as a property of the whole reader below the file system."""
    import tomllib

    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return
    with pytest.raises(SettingsError):
        check_settings(Path("edge.toml"), document)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2)
)


@given(st.sampled_from([row.name for row in SETTINGS]), VALUES)
def test_any_value_of_any_type_is_taken_or_answered_with_a_sentence(name: str, value: object) -> None:
    """Invariant 8 for each setting: no checker raises anything else."""
    document: dict[str, object] = {"terminal": {"name": "a"}}
    table, _, key = name.rpartition(".")
    if table:
        document[table] = {**(document.get(table) or {}), key: value}  # type: ignore[dict-item]  # tables of dicts
    else:
        document[key] = value
    try:
        check_settings(Path("edge.toml"), document)
    except SettingsError as refusal:
        assert str(refusal).startswith("edge.toml: ")
        assert str(refusal).isprintable()
