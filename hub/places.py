"""Where a hub's settings, state and key lie by default, and where `init` puts them."""

from dataclasses import dataclass
from pathlib import Path

from hub.settings import HubSettings


@dataclass(frozen=True, slots=True)
class Places:
    """Where `init` puts what it makes."""

    settings: Path
    state_directory: Path
    key_file: Path


def default_places(user_id: int, home: Path) -> Places:
    """The system's places for root, the user's own otherwise."""
    if user_id == 0:
        defaults = HubSettings()
        return Places(Path("/etc/farebox/hub.toml"), defaults.state_directory, defaults.key_file)
    return Places(
        home / ".config/farebox/hub.toml",
        home / ".local/state/farebox-hub",
        home / ".config/farebox/hub.key",
    )
