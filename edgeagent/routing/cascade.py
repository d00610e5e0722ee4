"""Whether a model should answer a request that it has begun to answer, by the margins of its first tokens.

The margin of a token is the lead of the most probable one over the second, in nats. A model that is guessing
has small margins. Pure; serving/chat.py runs the trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeagent.routing.decision import Decision
from edgeagent.settings.routing import RoutingSettings
from edgeagent.types.answer import TokenLogprob
from edgeagent.types.generation import GenerateSpec

# Alternatives that a margin needs.
N_ALTERNATIVES = 2
# What the administrator or the client has decided stays so.
_REASONS = ("default", "learned", "fallback", "explored")


@dataclass(frozen=True)
class Trial:
    """The first tokens of an answer: the mean of their margins."""

    n_tokens: int
    mean_margin: float

    def __str__(self) -> str:
        return f"mean margin {self.mean_margin:.3f} over {self.n_tokens} tokens"


def needs_trial(decision: Decision, spec: GenerateSpec, settings: RoutingSettings) -> bool:
    """Whether the model of a route is tried before it answers.

    Not where the answer has a given form, whose grammar leaves few tokens to be unsure about.
    """
    is_open = decision.route is not None and decision.reason in _REASONS and bool(decision.larger)
    return is_open and settings.cascade_tokens > 0 and spec.form is None


def trial_of(tokens: Sequence[TokenLogprob]) -> Trial | None:
    """The trial of some tokens; None where none of them has a second choice."""
    margins = [
        token.top[0].logprob - token.top[1].logprob
        for token in tokens
        if len(token.top) >= N_ALTERNATIVES
    ]
    return Trial(len(margins), sum(margins) / len(margins)) if margins else None


def should_escalate(trial: Trial | None, settings: RoutingSettings) -> bool:
    """Whether the next model is to answer. One that ends at once, without a token, has not passed."""
    return trial is None or trial.mean_margin < settings.cascade_min_margin
