"""Why a candidate is too expensive for a request now. Pure.

The first candidate of a route is never too expensive: there is nothing smaller. Tokens are counted by API key
and model over 24 hours; times are predicted from the last answers of the model and from what runs there
(serving/model_usage.py).
"""

from __future__ import annotations

from edgeagent.routing.route_request import ModelState, RouteRequest, RouteState
from edgeagent.settings.route_budgets import RouteBudgets


def over_budget(
    budgets: RouteBudgets, request: RouteRequest, state: RouteState, model: ModelState
) -> str | None:
    """The budget that a model would exceed, in words; None where it is within all."""
    bound = budgets.tokens_per_key_day
    used = state.tokens_of_key.get(model.model_id, 0)
    if bound is not None and used >= bound:
        return f"this key has used {used} of {bound} tokens of the day"
    is_here = not model.access  # a model elsewhere takes no power of this device
    if is_here and budgets.small_on_battery and state.is_on_battery:
        return "the device runs on battery"
    if is_here and budgets.small_when_hot and state.is_throttled:
        return "the processor is throttled"
    if budgets.max_queue is not None and model.n_busy >= budgets.max_queue:
        return f"{model.n_busy} requests run or wait there, {budgets.max_queue} may"
    if budgets.latency_s is not None and (model.answer_s or 0.0) > budgets.latency_s:
        return f"an answer takes about {model.answer_s:.1f} s, {budgets.latency_s:g} s are allowed"
    left_s, first_s = request.left_s, model.first_token_s
    if left_s is not None and first_s is not None and first_s > left_s:
        return f"a first token takes about {first_s:.1f} s, the request has {left_s:.1f} s"
    return None


def uses_device(budgets: RouteBudgets) -> bool:
    """Whether the power or the heat of the device matters."""
    return budgets.small_on_battery or budgets.small_when_hot
