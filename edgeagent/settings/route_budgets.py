"""`[routing.budgets]`: when a route takes a smaller candidate than it would choose."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class RouteBudgets(SettingsTable):
    tokens_per_key_day: int | None = Field(
        default=None,
        ge=0,
        description="tokens, read and generated, that each API key may use in 24 hours of every candidate "
        "behind the first one; default: no bound",
    )
    latency_s: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="longest time to a whole answer, as predicted from earlier answers of the model and its "
        "queue; default: no bound but the `timeout` of a request for its first token",
    )
    energy_j: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        allow_inf_nan=False,
        description="joules that an answer may take, as measured for earlier answers of the model (RAPL, INA "
        "sensors or a battery in use); where nothing measures energy, and by default: no bound",
    )
    energy_per_key_day_j: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        allow_inf_nan=False,
        description="joules that each API key may use in 24 hours of every candidate behind the first one, "
        "as measured; where nothing measures energy, and by default: no bound",
    )
    max_queue: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="requests that may run or wait at a candidate behind the first one before it counts as "
        "overloaded; default: no bound",
    )
    small_on_battery: bool = Field(
        default=False,
        description="only the first candidate answers while the device runs on battery",
    )
    small_when_hot: bool = Field(
        default=False,
        description="only the first candidate answers while the processor is throttled by heat",
    )
