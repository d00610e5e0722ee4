"""Requests, states and routers for tests of routes."""

from __future__ import annotations

import tomllib
from typing import Any

from edgeagent.routing.auto_router import AutoRouter
from edgeagent.routing.route_request import ModelState, RouteRequest, RouteState
from edgeagent.settings.routing import RoutingSettings

SMALL, MIDDLE, LARGE, TALKER = "small", "middle", "large", "talker"


def state(*, cooling: str = "", resident: str = "", busy: int = 0, **device: Any) -> RouteState:
    """Three models, of which `small` is an assistant model, and one that is no candidate."""
    models = {
        name: ModelState(
            name,
            size_bytes=100 * (n + 1),
            is_assistant=name == SMALL,
            is_resident=name in resident.split(),
            n_busy=busy if name == LARGE else 0,
            cooling_s=9.0 if name in cooling.split() else 0.0,
        )
        for n, name in enumerate((SMALL, MIDDLE, LARGE, TALKER))
    }
    return RouteState(models, default_id=SMALL, larger_id=LARGE, **device)


def router(text: str = "", **settings: Any) -> AutoRouter:
    """A router of settings as TOML, whose candidates are the three models."""
    given = {"candidates": [SMALL, MIDDLE, LARGE]} | tomllib.loads(text) | settings
    return AutoRouter(RoutingSettings(**given))


def rule(match: str, to: str = LARGE, name: str = "r") -> str:
    """A rule as TOML; `match` is the inside of its table."""
    return f'[[rules]]\nid = "{name}"\nmatch = {{ {match} }}\nroute_to = "{to}"\n'


def asked(text: str = "", route: str = "auto", **features: Any) -> RouteRequest:
    return RouteRequest(route, **{"text": text, "n_chars": len(text)} | features)
