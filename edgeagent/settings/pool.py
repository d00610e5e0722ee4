"""`[pool]`: which models stay loaded, and the memory that they may use."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class PoolSettings(SettingsTable):
    pinned_models: list[str] = Field(
        default_factory=list, description="models that stay loaded once they are loaded"
    )
    idle_unload_s: float = Field(
        default=900.0,
        ge=0,
        le=1e9,
        description="unload an idle model after this time, except the default model; 0: never",
    )
    ram_budget_bytes: int | None = Field(
        default=None,
        ge=1,
        description="memory for all workers together; default: from the device profile",
    )
