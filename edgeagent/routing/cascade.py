"""Whether a model should answer a request that it has begun to answer, by the margins of its first tokens,
and by how far answers that are drawn agree.

The margin of a token is the lead of the most probable one over the second, in nats. A model that is guessing
has small margins, and says something else each time. Pure; serving/cascade_trial.py runs the trial.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from edgeagent.routing.decision import Decision
from edgeagent.settings.routing import RoutingSettings
from edgeagent.types.answer import TokenLogprob
from edgeagent.types.generation import GenerateSpec

# Alternatives that a margin needs.
N_ALTERNATIVES = 2
# Draws are compared at least at this temperature: without it they are all the same.
DRAW_TEMPERATURE = 0.7
_WORD = re.compile(r"\w+")
# What the administrator or the client has decided stays so.
_REASONS = ("default", "learned", "fallback", "explored")


@dataclass(frozen=True)
class Trial:
    """The first tokens of an answer: the mean of their margins; `agreement` of answers that were drawn, 0 to
    1, None where none were."""

    n_tokens: int
    mean_margin: float
    agreement: float | None = None

    def __str__(self) -> str:
        told = f"mean margin {self.mean_margin:.3f} over {self.n_tokens} tokens"
        return told if self.agreement is None else f"{told}, agreement {self.agreement:.2f}"


def needs_trial(decision: Decision, spec: GenerateSpec, settings: RoutingSettings) -> bool:
    """Whether the model of a route is tried before it answers.

    Not where the answer has a given form, whose grammar leaves few tokens to be unsure about.
    """
    is_open = decision.route is not None and decision.reason in _REASONS and bool(decision.larger)
    return is_open and settings.cascade_tokens > 0 and spec.form is None


def trial_of(tokens: Sequence[TokenLogprob], drawn: Sequence[str] = ()) -> Trial | None:
    """The trial of some tokens and of answers that were drawn; None where no token has a second choice."""
    margins = [
        token.top[0].logprob - token.top[1].logprob
        for token in tokens
        if len(token.top) >= N_ALTERNATIVES
    ]
    if not margins:
        return None
    return Trial(len(margins), sum(margins) / len(margins), agreement(drawn))


def agreement(texts: Sequence[str]) -> float | None:
    """The mean share of words that two of the texts have in common; None of fewer than two."""
    words = [frozenset(_WORD.findall(text.casefold())) for text in texts]
    shares = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(words, 2)]
    return sum(shares) / len(shares) if shares else None


def should_escalate(trial: Trial | None, settings: RoutingSettings) -> bool:
    """Whether the next model is to answer. One that ends at once, without a token, has not passed."""
    if trial is None or trial.mean_margin < settings.cascade_min_margin:
        return True
    return trial.agreement is not None and trial.agreement < settings.cascade_min_agreement
