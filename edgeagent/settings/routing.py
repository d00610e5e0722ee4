"""`[routing]`: which model answers a request to `auto`, when the larger model answers, and what the assistant
model may do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeagent.settings.route_budgets import RouteBudgets
from edgeagent.settings.route_rules import MAX_RULES, NamedRoute, RoutingRule
from edgeagent.settings.scope_gate import ScopeSettings
from edgeagent.settings.settings_table import ModelName, SettingsTable
from edgeagent.settings.upstreams import UpstreamSettings


class RoutingSettings(SettingsTable):
    escalate: bool = Field(
        default=True,
        description="answer a chat that names no model with the larger model when the default model is an "
        "assistant model that abstains; a request may override this",
    )
    assistant_calls: Literal["named", "always", "never"] = Field(
        default="named",
        description="when an assistant model answers with a tool call although the client sent no tools: "
        '"named" if the request names the model (otherwise it describes the call in words), "always" or '
        '"never"; a request overrides this with `metadata.calls`',
    )
    assistant_tools: Literal["off"] | Path | None = Field(
        default=None,
        description="TOML file that maps sentences to the tools of clients, for example of Home Assistant; "
        'default: the bundled file; "off": no mapping',
    )
    candidates: list[ModelName] = Field(
        default=[],
        max_length=32,
        description="models that answer requests to the model `auto`, from the fastest to the best; default: "
        "the default model and its larger model, or all text models by size",
    )
    default_model: ModelName | None = Field(
        default=None,
        description="the candidate that answers a request to `auto` that no rule matches; default: the first",
    )
    fallbacks: list[ModelName] = Field(
        default=[],
        max_length=32,
        description="models that answer in place of a candidate that cannot, in this order; default: the "
        "other candidates",
    )
    cooldown_s: float = Field(
        default=30.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="seconds in which routes avoid a model whose worker died or could not be loaded",
    )
    cascade_tokens: int = Field(
        default=0,
        ge=0,
        le=256,
        description="tokens by which a route judges its model before it answers: below `cascade_min_margin` "
        "the next candidate answers; 0: no such trial",
    )
    cascade_min_margin: float = Field(
        default=1.0,
        ge=0,
        le=50,
        allow_inf_nan=False,
        description="mean lead of the chosen token over the second one in the trial, in nats, that a model "
        "needs to answer",
    )
    cascade_samples: int = Field(
        default=0,
        ge=0,
        le=8,
        description="answers of `cascade_tokens` tokens that the trial draws beside it, 2 to 8, from one "
        "prompt: where they are less alike than `cascade_min_agreement` the next candidate answers; 0: none",
    )
    cascade_min_agreement: float = Field(
        default=0.3,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="mean share of words that two drawn answers of the trial need to have in common",
    )
    policy: Path | None = Field(
        default=None,
        description="file of a learned policy (`edgeagent route train`), which chooses between its two "
        "models where no rule matches",
    )
    explore: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of the requests to routes that no rule decides whose model is drawn among the "
        "candidates, so that `route replay` can tell what another policy would have done; private requests "
        "are left out",
    )
    record: Literal["features", "choices", "off"] = Field(
        default="features",
        description='what is kept of each decision of a route: "features" has hashed words of the text, '
        'which `route replay` and `train --from-log` need, "choices" has none of the text; private requests '
        "are kept without features",
    )
    scope: ScopeSettings = ScopeSettings()
    budgets: RouteBudgets = RouteBudgets()
    rules: list[RoutingRule] = Field(
        default=[],
        max_length=MAX_RULES,
        description="conditions and the model for requests that fulfil them; the first match counts",
    )
    routes: list[NamedRoute] = Field(
        default=[],
        max_length=100,
        description="further names like `auto`, with candidates of their own",
    )
    upstreams: list[UpstreamSettings] = Field(
        default=[],
        max_length=64,
        description="engines elsewhere with OpenAI's API that may answer for the keys and privacy classes "
        "that each names; default: none, nothing is sent",
    )
