"""`[worker]`: when a worker process counts as failed."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class WorkerSettings(SettingsTable):
    load_timeout_s: float = Field(
        default=180.0, gt=0, le=3600, description="time limit for loading a model"
    )
    hang_timeout_s: float = Field(
        default=60.0, gt=1, le=3600, description="restart a worker that sends nothing for this long"
    )
    breaker_deaths: int = Field(
        default=5,
        ge=1,
        le=10_000,
        description="consecutive worker deaths without an answer that open the breaker",
    )
    breaker_window_s: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="time in which deaths are counted, and for which the breaker then stays open",
    )
