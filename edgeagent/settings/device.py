"""`[device]`: the profile of this device, and when it is measured."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class DeviceSettings(SettingsTable):
    profile: str | None = Field(
        default=None,
        description="name of the device profile; default: the profile that matches the device",
    )
    measure_when_idle: bool = Field(
        default=True,
        description="measure the speed of a new device, and of the steps of each model, when idle",
    )
