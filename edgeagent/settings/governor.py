"""`[governor]`: how engines give way to other programs, to heat and to a low battery."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class GovernorSettings(SettingsTable):
    enabled: bool = Field(
        default=True,
        description="follow contention, heat and battery; false: engine.n_threads at all times",
    )
    min_threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="threads that heat and a low battery leave to all engines",
    )
    max_temp_c: float = Field(
        default=80.0,
        ge=30,
        le=120,
        description="limit of the processor's temperature where the kernel names none",
    )
    heat_margin_c: float = Field(
        default=3.0,
        ge=0,
        le=50,
        description="take away threads from this many degrees below the limit of the temperature",
    )
    cool_margin_c: float = Field(
        default=8.0,
        ge=0,
        le=80,
        description="give them back from this many degrees below it; more than heat_margin_c",
    )
    low_battery_percent: int = Field(
        default=20, ge=0, le=100, description="use half the cores below this charge; 0: never"
    )
