"""The outcome of routing: which model answers, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeagent.settings.route_rules import Privacy
from edgeagent.types.intents import Confidence

Reason = Literal[
    "named",
    "default",
    "escalated",
    "out_of_scope",
    "rule",
    "learned",
    "preferred",
    "fallback",
    "explored",
    "budget",
]


@dataclass(frozen=True)
class TraceStep:
    """One thing that the router looked at: a rule or a model, the outcome, and the reason for it."""

    subject: str
    outcome: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.outcome}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Choice:
    """How a route chose its model, for the decision log.

    `chances`: the probability of each candidate that could answer, None where nothing was open: a rule, the
    route itself or a failure has decided. `default` is the model for what a policy does not know. `text` is
    None where nothing may be kept of it.
    """

    model_id: str
    reason: Reason
    default: str
    chances: Mapping[str, float] | None = None
    domain: str | None = None
    subject: str | None = None
    text: str | None = None

    @property
    def propensity(self) -> float | None:
        """The probability with which this model was chosen."""
        return self.chances[self.model_id] if self.chances is not None else None


@dataclass(frozen=True)
class Decision:
    """The model that answers a request, and the reason.

    `reason` is "named" where the request names the model, "default" where it names none, and "escalated"
    where an assistant model was not sure enough (`confidence`) and its larger model takes over; that is
    "out_of_scope" where its scope gate has found so. Where the
    request names a `route`, "rule" means that `rule` matched, "learned" that a policy has chosen (`scores`),
    "explored" that the model was drawn (`[routing] explore`), "preferred" that the route itself asks for the
    fastest or the best model, "budget" that the chosen model was too expensive ([routing.budgets]), and
    "fallback" that the wanted model could not answer. `larger` are the models of the route that may take
    over, nearest first; `too_expensive` are those that may not. `choice` is what the route chose, whichever
    model answers in the end. `privacy` as of the request. `adapter`: the LoRA adapter of the model, and its
    file. With `shows_trace` the client gets the whole decision.
    """

    model_id: str
    reason: Reason
    confidence: Confidence | None = None
    route: str | None = None
    rule: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    trace: tuple[TraceStep, ...] = ()
    larger: tuple[str, ...] = ()
    choice: Choice | None = None
    privacy: Privacy = "local"
    adapter: str | None = None
    adapter_path: str | None = None
    too_expensive: frozenset[str] = frozenset()
    shows_trace: bool = False

    @property
    def name(self) -> str:
        """What answers, as a client names it: the adapter, else the model."""
        return self.adapter or self.model_id

    @property
    def header(self) -> str | None:
        """The value of the header `x-edgeagent-route`; None where the request named no route."""
        if self.route is None:
            return None
        parts = {"route": self.route, "model": self.model_id, "reason": self.reason}
        if self.rule is not None:
            parts["rule"] = self.rule
        return "; ".join(f"{name}={_in_header(value)}" for name, value in parts.items())

    def told(self) -> dict[str, Any]:
        """The decision for a client."""
        return {
            "route": self.route,
            "model": self.model_id,
            "reason": self.reason,
            "rule": self.rule,
            "propensity": self.choice.propensity if self.choice is not None else None,
            "scores": {name: round(score, 6) for name, score in self.scores.items()},
            "trace": [
                {"subject": step.subject, "outcome": step.outcome, "detail": step.detail}
                for step in self.trace
            ],
        }


def _in_header(text: str) -> str:
    """Names of models may have any character; a header has printable ASCII."""
    return "".join(char if " " < char < "\x7f" and char != ";" else "_" for char in text)
