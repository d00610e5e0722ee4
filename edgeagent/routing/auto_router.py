"""Chooses the model of a request to `auto` or to a named route.

Pure: a request and a state in, a decision out.

1. the candidates of the route, without those that cannot answer this request now
2. `auto:fast` takes the first candidate, `auto:quality` the last one           ("preferred")
3. the first rule whose conditions hold names the model                          ("rule")
4. the learned policy, for texts like those it was trained on                    ("learned")
5. the default model of the route                                                ("default")
6. where 4 or 5 decided: for a share of the requests, a candidate that is drawn  ("explored")
7. where the model of 2 to 5 cannot answer now: the first fallback that can      ("fallback")
8. where that is over a budget: the next smaller candidate that is not           ("budget")

An assistant model that abstains is followed by `Decision.larger` (serving/chat.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeagent.errors import Forbidden, SettingsError, Unavailable
from edgeagent.routing import budgets
from edgeagent.routing.conditions import Condition, compile_match, regexes, uses_device
from edgeagent.routing.decision import Choice, Decision, Reason, TraceStep
from edgeagent.routing.exploration import chances_of, drawn
from edgeagent.routing.route_request import ModelState, RouteRequest, RouteState
from edgeagent.routing.score_policy import Score, read_policy
from edgeagent.routing.upstreams.upstream_access import circle
from edgeagent.settings.route_rules import NamedRoute
from edgeagent.settings.routing import RoutingSettings

AUTO, FAST, QUALITY, LOCAL = "auto", "auto:fast", "auto:quality", "auto:local"
AUTO_ROUTES = (AUTO, FAST, QUALITY, LOCAL)
RESERVED = frozenset({"default", *AUTO_ROUTES})
RETRY_AFTER_S = 30.0
MAX_REGEXES = 32


@dataclass(frozen=True)
class Rule:
    """A compiled rule."""

    id: str
    holds: Condition
    model_id: str


@dataclass(frozen=True)
class _Scene:
    """One request, the candidates that exist, and those that cannot answer it or are over a budget, with the
    reason."""

    request: RouteRequest
    state: RouteState
    candidates: tuple[str, ...]
    default: str
    excluded: dict[str, str]
    expensive: dict[str, str]

    @property
    def able(self) -> list[str]:
        """The candidates that can answer, whatever they cost."""
        return [one for one in self.candidates if one not in self.excluded]


class AutoRouter:
    """The routes of the settings, compiled. Any thread may call anything.

    Raises: SettingsError for rules and routes that cannot be used, in one line.
    """

    def __init__(self, settings: RoutingSettings) -> None:
        self._settings = settings
        self._rules = _compiled(settings)
        self._routes = _named(settings)
        self._policy = read_policy(settings.policy) if settings.policy is not None else None
        self.counts_energy = budgets.counts_energy(settings.budgets)
        self.uses_device = budgets.uses_device(settings.budgets) or any(
            uses_device(rule.match) for rule in settings.rules
        )

    @property
    def names(self) -> list[str]:
        """What clients may send in place of a model."""
        return [*AUTO_ROUTES, *self._routes]

    @property
    def models(self) -> dict[str, str]:
        """Every model that the settings name, with the place that names it."""
        settings = self._settings
        found = dict.fromkeys(settings.candidates, "[routing] candidates")
        if settings.default_model is not None:
            found.setdefault(settings.default_model, "[routing] default_model")
        for route in settings.routes:
            for model_id in route.candidates:
                found.setdefault(model_id, f"route {route.name}")
        for rule in settings.rules:
            found.setdefault(rule.route_to, f"rule {rule.id}")
        if self._policy is not None:
            for model_id in (self._policy.file.small, self._policy.file.large):
                found.setdefault(model_id, "[routing] policy")
        return found | {
            one: "[routing] fallbacks" for one in settings.fallbacks if one not in found
        }

    def may_use(self, name: str, key_id: str, owner: str) -> bool:
        """Whether the caller may send this name."""
        route = self._routes.get(name)
        return route is None or route.keys is None or key_id in route.keys or owner in route.keys

    def route(self, request: RouteRequest, state: RouteState) -> Decision:
        """The model that answers.

        Raises: Forbidden for a route that the key may not use, and a request that goes in a circle;
        Unavailable where no model can answer now.
        """
        if not self.may_use(request.route, request.key_id, request.owner):
            raise Forbidden(
                f"This key may not use the route {request.route!r}: name another model, or let the "
                "administrator add the key to its `keys`.",
                param="model",
            )
        scene = self._scene(request, state)
        trace = [TraceStep(f"model {one}", "excluded", why) for one, why in scene.excluded.items()]
        if self.counts_energy and state.energy_source is None:
            trace.append(TraceStep("energy budget", "unmeasured", "nothing here measures energy"))
        wanted, reason, rule = self._wanted(scene, trace)
        scores: dict[str, float] = {}
        if reason == "default" and (found := self._learned(scene, trace)) is not None:
            wanted, score = found
            scores = {
                "benefit": score.benefit,
                "p_small": score.p_small,
                "known": score.share_known,
            }
            reason = "learned" if score.is_known else reason
        model_id, chances = wanted, self._chances(scene, wanted, reason)
        if chances is not None:
            model_id = drawn(request.request_id, wanted, chances)
            reason = reason if model_id == wanted else "explored"
        if wanted in scene.excluded:
            model_id, reason = self._fallback(scene, wanted), "fallback"
        if (smaller := _within_budget(scene, model_id)) is not None:
            why = scene.expensive[model_id]
            trace.append(TraceStep(f"model {model_id}", "over budget", why))
            model_id, reason, chances = smaller, "budget", None
        trace.append(TraceStep(f"model {model_id}", "chosen", reason))
        return Decision(
            model_id, reason, route=request.route, rule=rule, scores=scores,
            trace=tuple(trace), larger=_after(scene, model_id), privacy=request.privacy,
            too_expensive=frozenset(scene.expensive),
            choice=self._choice(scene, model_id, reason, chances),
        )  # fmt: skip

    # ---- 1

    def _scene(self, request: RouteRequest, state: RouteState) -> _Scene:
        route = self._routes.get(request.route)
        wanted = list(route.candidates) if route is not None else self._candidates(state)
        if not wanted:
            raise Unavailable(
                "No model that generates text is installed: `edgeagent models list` shows which can be.",
                retry_after_s=RETRY_AFTER_S,
            )
        named = route.default_model if route is not None else self._settings.default_model
        default = named or wanted[0]
        targets = [rule.model_id for rule in self._rules] if route is None else []
        excluded: dict[str, str] = {}
        for model_id in dict.fromkeys([*wanted, default, *targets, *self._settings.fallbacks]):
            why = _why_not(request, state.models.get(model_id))
            if why is not None:
                excluded[model_id] = why
        expensive: dict[str, str] = {}
        for model_id in wanted[1:]:
            if model_id not in excluded and (found := self._over(request, state, model_id)):
                expensive[model_id] = found
        return _Scene(request, state, tuple(wanted), default, excluded, expensive)

    def _over(self, request: RouteRequest, state: RouteState, model_id: str) -> str | None:
        return budgets.over_budget(self._settings.budgets, request, state, state.models[model_id])

    def _candidates(self, state: RouteState) -> list[str]:
        if self._settings.candidates:
            return list(self._settings.candidates)
        if state.default_id is not None and state.larger_id is not None:
            return [state.default_id, state.larger_id]
        local = [model for model in state.models.values() if not model.access]
        by_size = sorted(local, key=lambda m: (m.size_bytes, m.model_id))
        return [model.model_id for model in by_size]

    # ---- 2 to 4

    def _wanted(self, scene: _Scene, trace: list[TraceStep]) -> tuple[str, Reason, str | None]:
        if scene.request.route in (FAST, QUALITY):  # 2
            chosen = scene.able or scene.candidates
            return chosen[0 if scene.request.route == FAST else -1], "preferred", None
        is_named = scene.request.route in self._routes
        for rule in self._rules:  # 3
            if is_named and rule.model_id not in scene.candidates:
                continue
            if rule.holds(scene.request, scene.state):
                trace.append(TraceStep(f"rule {rule.id}", "matched", f"routes to {rule.model_id}"))
                return rule.model_id, "rule", rule.id
        if self._rules:
            trace.append(TraceStep("rules", "none matched", f"{len(self._rules)} rules"))
        return scene.default, "default", None  # 5

    # ---- 4

    def _learned(self, scene: _Scene, trace: list[TraceStep]) -> tuple[str, Score] | None:
        """The model of the learned policy and its score; the default one for a text unlike its training data.
        None without a policy for this route."""
        if self._policy is None:
            return None
        file = self._policy.file
        if not {file.small, file.large} <= set(scene.candidates):
            return None
        score = self._policy.score(scene.request.text, scene.request.domain)
        if not score.is_known:
            known = f"{score.share_known:.0%} of its words are known"
            trace.append(TraceStep("policy", "does not know", known))
            return scene.default, score
        is_large = score.benefit >= file.threshold
        model_id, sign = (file.large, ">=") if is_large else (file.small, "<")
        why = f"benefit {score.benefit:.3f} {sign} {file.threshold:.3f}"
        trace.append(TraceStep("policy", model_id, why))
        return model_id, score

    # ---- 6

    def _chances(self, scene: _Scene, wanted: str, reason: Reason) -> dict[str, float] | None:
        """The probability of each candidate; None where the choice is not open."""
        if reason not in ("default", "learned") or wanted in scene.excluded:
            return None
        able = [one for one in scene.able if one not in scene.expensive]
        is_private = scene.request.privacy != "any"
        if wanted not in able or scene.request.failed:
            return None
        return chances_of(wanted, able, 0.0 if is_private else self._settings.explore)

    def _choice(
        self, scene: _Scene, model_id: str, reason: Reason, chances: dict[str, float] | None
    ) -> Choice | None:
        """What the decision log keeps; None where it keeps nothing."""
        request, record = scene.request, self._settings.record
        if record == "off":
            return None
        is_kept = record == "features" and request.privacy == "any"
        return Choice(
            model_id, reason, scene.default, chances=chances, domain=request.domain,
            subject=request.metadata.get("subject") or None, text=request.text if is_kept else None,
        )  # fmt: skip

    # ---- 7

    def _fallback(self, scene: _Scene, wanted: str) -> str:
        """Raises: Unavailable where no model can answer now; Forbidden where none ever can: a request that
        has come through too many daemons, and no model here."""
        for model_id in [*self._settings.fallbacks, *_nearest_first(scene.candidates, wanted)]:
            if model_id not in scene.excluded and model_id in scene.state.models:
                return model_id
        known = [scene.state.models[one] for one in scene.excluded if one in scene.state.models]
        if known and not scene.request.sender.may_go_on and all(one.access for one in known):
            raise circle(scene.request.n_hops)
        cooling = [m.cooling_s for m in scene.state.models.values() if m.cooling_s > 0]
        why = "; ".join(f"{one} {why}" for one, why in list(scene.excluded.items())[:3])
        raise Unavailable(
            f"No model of the route {scene.request.route!r} can answer now: {why}. Try again later, or name "
            "another model.",
            retry_after_s=min(cooling, default=RETRY_AFTER_S),
        )


def _why_not(request: RouteRequest, model: ModelState | None) -> str | None:
    """Why a model cannot answer a request now; None where it can."""
    if model is None:
        return "is not installed"
    if model.access and not any(one.admits(request.sender) for one in model.access):
        return "answers elsewhere, where this request may not be sent"
    if model.access and not request.sender.may_go_on:
        return f"answers elsewhere, and the request has come through {request.n_hops} edgeagents"
    if model.model_id in request.failed:
        return "could not be used"
    if model.cooling_s > 0:
        return "has failed and is avoided for a while"
    if model.is_assistant and request.has_schema:
        return "is an assistant model, which follows no schema"
    if model.is_assistant and request.is_plain:
        return "is an assistant model, which does not continue texts"
    return None


def _nearest_first(candidates: Sequence[str], wanted: str) -> Iterator[str]:
    """Larger candidates before smaller ones, the nearest of each first."""
    at = candidates.index(wanted) if wanted in candidates else 0
    yield from candidates[at:]
    yield from reversed(candidates[:at])


def _after(scene: _Scene, model_id: str) -> tuple[str, ...]:
    """The candidates behind a model that can answer this request."""
    if model_id not in scene.candidates:
        return ()
    behind = scene.candidates[scene.candidates.index(model_id) + 1 :]
    return tuple(one for one in behind if one not in scene.excluded and one not in scene.expensive)


def _within_budget(scene: _Scene, model_id: str) -> str | None:
    """The nearest smaller candidate in place of one that is over a budget; None where it stays."""
    if model_id not in scene.expensive:
        return None
    before = scene.candidates[: scene.candidates.index(model_id)]
    cheap = (one for one in reversed(before) if one in scene.able and one not in scene.expensive)
    return next(cheap, None)


def _compiled(settings: RoutingSettings) -> list[Rule]:
    """Raises: SettingsError."""
    seen: set[str] = set()
    rules: list[Rule] = []
    for rule in settings.rules:
        if rule.id in seen:
            raise SettingsError(
                f"Two rules in [[routing.rules]] have the id {rule.id!r}: rename one."
            )
        seen.add(rule.id)
        rules.append(Rule(rule.id, compile_match(rule.match, f"Rule {rule.id!r}"), rule.route_to))
    n_regexes = sum(regexes(rule.match) for rule in settings.rules)
    if n_regexes > MAX_REGEXES:
        raise SettingsError(
            f"[[routing.rules]] has {n_regexes} regexes, the limit is {MAX_REGEXES}, so that routing stays "
            "fast: use `keywords_any`, or join patterns with `|`."
        )
    default = settings.default_model
    if default is not None and settings.candidates and default not in settings.candidates:
        raise SettingsError(
            f"[routing] default_model = {default!r} is none of the candidates "
            f"{', '.join(settings.candidates)}: add it there, or choose one of them."
        )
    return rules


def _named(settings: RoutingSettings) -> dict[str, NamedRoute]:
    """Raises: SettingsError."""
    found: dict[str, NamedRoute] = {}
    for route in settings.routes:
        if route.name in RESERVED or route.name in found:
            raise SettingsError(
                f"[[routing.routes]] has the name {route.name!r}, which is taken: choose another name."
            )
        if route.default_model is not None and route.default_model not in route.candidates:
            raise SettingsError(
                f"Route {route.name!r} has the default_model {route.default_model!r}, which is none of its "
                "candidates: add it there, or choose one of them."
            )
        found[route.name] = route
    return found
