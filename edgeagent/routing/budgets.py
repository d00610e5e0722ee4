"""Why a candidate is too expensive for a request now. Pure.

The first candidate of a route is never too expensive: there is nothing smaller. Tokens and joules are counted
by API key and model over 24 hours; times and energy are predicted from the last answers of the model, times
also from what runs there (serving/model_usage.py).
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
    spent = state.joules_of_key.get(model.model_id, 0.0)
    bound_j = budgets.energy_per_key_day_j
    if is_here and bound_j is not None and state.energy_source and spent >= bound_j:
        return f"this key has used {spent:.0f} of {bound_j:g} J of the day"
    if is_here and budgets.energy_j is not None and (model.answer_j or 0.0) > budgets.energy_j:
        return f"an answer takes about {model.answer_j:.1f} J, {budgets.energy_j:g} J are allowed"
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
    """Whether the power, the heat or the energy of the device matters."""
    return budgets.small_on_battery or budgets.small_when_hot or counts_energy(budgets)


def counts_energy(budgets: RouteBudgets) -> bool:
    """Whether a budget needs what answers use of energy."""
    return budgets.energy_j is not None or budgets.energy_per_key_day_j is not None
