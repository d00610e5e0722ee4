"""The `edgeagent` object of an answer."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from edgeagent.api.http.body_base import BodyModel
from edgeagent.routing.decision import Reason


class ConfidenceBody(BodyModel):
    """The confidence of an assistant model: `intent` has `probability` among all intents, out-of-scope
    included; that is `margin` more than the next one. `abstained`: it was below the threshold."""

    intent: str
    probability: float
    margin: float
    domain: str | None
    abstained: bool


class SchemaNoteBody(BodyModel):
    """A part of a schema that was not enforced: the keyword, its path, and the reason. `tool` is null for
    the schema of the answer itself."""

    tool: str | None
    path: str
    keyword: str
    note: str


class TraceStepBody(BodyModel):
    """A rule or a model that was considered, the outcome, and the reason for it."""

    subject: str
    outcome: str
    detail: str


class RoutingBody(BodyModel):
    """The decision about the model. `route` is the route that the request named, `rule` the rule that
    matched, `propensity` the probability with which the model was chosen, null where nothing was open."""

    route: str | None
    model: str
    reason: str
    rule: str | None
    propensity: float | None = None
    scores: dict[str, float]
    trace: list[TraceStepBody]


class ExtensionBody(BodyModel):
    """Extension: what edgeagent adds to an answer. `route` is the reason for the model, `notes` tell what
    was not done as requested, `schema_notes` what of a schema is not enforced without `strict`."""

    route: Reason
    routing: RoutingBody | None = Field(None, description="the decision, with `route_trace`")
    confidence: ConfidenceBody | None = None
    call: dict[str, Any] | None = Field(None, description="the call that the text describes")
    notes: list[str] | None = None
    schema_notes: list[SchemaNoteBody] | None = None
