"""`[[routing.rules]]` and `[[routing.routes]]`: which model answers a request to `auto` or a named route."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from edgeagent.settings.settings_table import ModelName, SettingsTable

MAX_RULES = 1000
MAX_WORDS = 200
MAX_PARTS = 50
MAX_PATTERN = 256

RouteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_WORDS)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATTERN)]
# "22:00-06:00", by the clock of the device; the end is not part of it.
DayTime = Annotated[
    str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")
]
# Where a request may be answered: on this device only, by engines of the site too, by any that is configured.
Privacy = Literal["local", "site", "any"]


class QueueMatch(SettingsTable):
    """At least `min` requests run or wait at the model."""

    model: ModelName
    min: int = Field(ge=1, le=100_000)


class RouteMatch(SettingsTable):
    """Conditions on a request and on this device. All that are given must hold.

    Text conditions read the last message of the user, of a long one its beginning and end. What the device
    does not report, such as the charge of a battery that it does not have, fulfils no condition.
    """

    keywords_any: Texts | None = None
    regex: Pattern | None = None
    min_chars: int | None = Field(None, ge=0)
    max_chars: int | None = Field(None, ge=0)
    has_tools: bool | None = None
    has_schema: bool | None = None
    language: Texts | None = None
    domain: Texts | None = None
    metadata: dict[Text, Annotated[str, StringConstraints(max_length=512)]] | None = None
    key: Texts | None = None
    privacy: Privacy | None = None
    time: DayTime | None = None
    battery: bool | None = None
    max_battery_percent: int | None = Field(None, ge=0, le=100)
    heat: bool | None = None
    min_temp_c: float | None = Field(None, ge=-40, le=200, allow_inf_nan=False)
    resident: ModelName | None = None
    queue: QueueMatch | None = None
    all: Annotated[list[RouteMatch], Field(min_length=1, max_length=MAX_PARTS)] | None = None
    any: Annotated[list[RouteMatch], Field(min_length=1, max_length=MAX_PARTS)] | None = None
    negated: RouteMatch | None = Field(None, alias="not")


class RoutingRule(SettingsTable):
    """A model for the requests that fulfil the conditions."""

    id: RouteName
    match: RouteMatch
    route_to: ModelName


class NamedRoute(SettingsTable):
    """A name that clients send in place of a model. `keys` are the ids or owners of the API keys that may
    use it; without it every key may."""

    name: RouteName
    candidates: Annotated[list[ModelName], Field(min_length=1, max_length=32)]
    default_model: ModelName | None = None
    keys: Texts | None = None
