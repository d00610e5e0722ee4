"""Settings for this device: the probe chooses a profile, and the profile is a layer of the settings.

A profile sets threads, context, KV type, sequences, batch, latency target and memory budget. User profiles
are TOML files in /etc/edgeagent/profiles and in `profiles` of the state directory; bundles add theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeagent.device.budget import Budget, budget
from edgeagent.device.probe import Device, probe
from edgeagent.device.profile import Profile
from edgeagent.device.profile_files import load
from edgeagent.device.profile_match import ProfileCandidate, match
from edgeagent.settings import ResolvedSettings, Settings, resolve

SYSTEM_PROFILES = Path("/etc/edgeagent/profiles")


@dataclass(frozen=True)
class Configuration:
    """Everything that is known before any part is created. `reason`: why this profile was chosen."""

    resolved: ResolvedSettings
    device: Device
    profile: Profile
    reason: str
    considered: tuple[ProfileCandidate, ...]
    budget: Budget

    @property
    def settings(self) -> Settings:
        return self.resolved.settings

    def read_again(self, *, flags: Mapping[str, Any], config: Path | None) -> Settings:
        """All layers of the settings as they are now, on the device as it was: what runs now is no reason for
        another budget. Raises: SettingsError."""
        layer = (self.profile.name, self.profile.settings(self.device))
        return resolve(flags=flags, config=config, profile=layer).settings


def configure(
    *,
    flags: Mapping[str, Any],
    config: Path | None = None,
    root: Path = Path("/"),
    worker_pid: int | None = None,
) -> Configuration:
    """Probe the device under `root` and resolve all layers. `worker_pid` is that of `memory.read_memory`.

    Raises: SettingsError for a wrong value in any layer, and for an unknown profile.
    """
    asked = resolve(flags=flags, config=config).settings
    device = probe(root, state_dir=asked.state_dir, worker_pid=worker_pid)
    folders = profile_folders(asked)
    if asked.device.profile is not None:
        profile, reason = load(asked.device.profile, folders), "named by the settings"
        considered: tuple[ProfileCandidate, ...] = ()
    else:
        found = match(device, folders)
        profile, reason, considered = found.profile, found.reason, found.considered
    layer = (profile.name, profile.settings(device))
    resolved = resolve(flags=flags, config=config, profile=layer)
    return Configuration(resolved, device, profile, reason, considered, budget(profile, device))


def profile_folders(settings: Settings) -> tuple[Path, ...]:
    """The folders of user profiles; later ones take precedence."""
    bundled = settings.bundles_dir / "profiles"
    return (bundled, SYSTEM_PROFILES, settings.state_dir / "profiles")
