"""`edgeagent route`: which model answers requests to `auto` and to named routes, and why."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edgeagent.catalog.installed import InstalledModels
from edgeagent.cli.keys import as_json_option
from edgeagent.cli.route_learning import evaluate
from edgeagent.cli.route_replay import replay
from edgeagent.cli.route_scope import told_of_gate
from edgeagent.cli.route_training import calibrate, train
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.store import opened
from edgeagent.cli.shared.terminal import show_table
from edgeagent.errors import ModelNotFound
from edgeagent.routing.auto_router import AUTO
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.routes import Routes, route_request
from edgeagent.settings import Settings
from edgeagent.types.prompt import Prompt

DAY_MS = 86_400_000


@click.group()
def route() -> None:
    """Check and explain the choice among models for requests to `auto` and to named routes."""


route.add_command(evaluate)
route.add_command(train)
route.add_command(calibrate)
route.add_command(replay)


def routes_of(
    config: Path | None, flags: dict[str, Any]
) -> tuple[Settings, Routes, InstalledModels]:
    """The routes of the settings, without a daemon: no model is loaded. Raises: SettingsError."""
    resolved = configured(config, **flags).resolved
    models = InstalledModels.of(resolved)
    return resolved.settings, Routes(resolved.settings.routing, models), models


@route.command()
@settings_options
def check(config: Path | None, **flags: Any) -> None:
    """Check the rules and routes of the settings. The exit status is 1 where a model is not installed."""
    settings, routes, models = routes_of(config, flags)
    missing = 0
    for model_id, place in routes.router.models.items():
        if routes.upstreams.of(model_id):
            continue
        try:
            models.find(model_id)
        except ModelNotFound as exc:
            missing += 1
            click.echo(printable(f"{place}: {exc.message}"), err=True)
    n_rules, n_routes = len(settings.routing.rules), len(settings.routing.routes)
    click.echo(
        f"{n_rules} rules and {n_routes} named routes are valid, {missing} models are missing."
    )
    if missing:
        raise SystemExit(1)


@route.command()
@click.argument("text")
@click.option(
    "--route", "name", default=AUTO, show_default=True, metavar="NAME", help="Route to explain."
)
@click.option("--key", metavar="ID", help="Id or owner of the API key.  Default: no key.")
@click.option("--tools", is_flag=True, help="The request offers tools.")
@click.option("--schema", is_flag=True, help="The request asks for a JSON schema.")
@click.option("--metadata", "pairs", multiple=True, metavar="NAME=VALUE",
              help="An entry of the request's metadata; may be repeated.")  # fmt: skip
@as_json_option
@settings_options
def explain(
    config: Path | None, text: str, name: str, key: str | None, tools: bool, schema: bool,
    pairs: tuple[str, ...], as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Tell which model would answer TEXT, and why. No model is run, and none counts as loaded or busy."""
    settings, routes, models = routes_of(config, flags)
    if not routes.has(name):
        known = ", ".join(routes.router.names)
        raise click.BadParameter(
            f"{name[:80]!r} is no route; the routes are {known}.", param_hint="--route"
        )
    origin = RequestOrigin("", "", key or "local", key or "local")
    prompt = Prompt(messages=[{"role": "user", "content": text}])
    metadata = _metadata(pairs)
    request = route_request(
        name, origin, [prompt], metadata=metadata, has_tools=tools, has_schema=schema
    )
    decision = replace(routes.decide(request), shows_trace=True)
    gate = None
    if decision.larger:
        gate = told_of_gate(settings, models, decision.model_id, text, metadata.get("domain"))
    if as_json:
        told = decision.told() | {"scope_gate": gate}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
        return
    rule = f"rule {decision.rule}" if decision.rule is not None else ""
    why = rule if decision.reason == "rule" else ", ".join(filter(None, (decision.reason, rule)))
    click.echo(printable(f"{decision.model_id} ({why})"))
    if decision.scores:
        shown = ", ".join(f"{name} {score:.3f}" for name, score in decision.scores.items())
        click.echo(f"  scores: {shown}")
    for step in decision.trace:
        click.echo(printable(f"  {step}"))
    if gate is not None:
        click.echo(printable(f"  {_gate_line(gate)}"))
    for model_id in decision.larger:
        click.echo(printable(f"  model {model_id}: may take over"))


def _gate_line(gate: dict[str, Any]) -> str:
    if "fault" in gate:
        return f"scope gate: {gate['fault']}"
    return (
        f"scope gate: judges the model's answer; by words the text is nearest to {gate['nearest']} "
        f"({gate['near']:.2f}), {gate['unknown']:.0%} of it is in no example"
    )


def _metadata(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, is_given, value = pair.partition("=")
        if not name or not is_given:
            raise click.BadParameter(f"{pair[:80]!r}: write NAME=VALUE.", param_hint="--metadata")
        found[name] = value
    return found


@route.command()
@click.option("--days", type=click.FloatRange(0, 3650, min_open=True), default=7.0, show_default=True,
              metavar="N", help="How far back.")  # fmt: skip
@as_json_option
@settings_options
def stats(config: Path | None, days: float, as_json: bool, **flags: Any) -> None:
    """Count the logged requests by route, rule, reason and model."""
    from edgeagent.store import requests

    since_ms = int(1e3 * time.time() - days * DAY_MS)
    with opened(config, flags) as here:
        rows = here.database.read(lambda db: requests.routes(db, since_ms=since_ms))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    names = (
        "route",
        "rule",
        "reason",
        "model",
        "requests",
        "failed",
        "tokens",
        "TTFT ms",
        "total ms",
    )
    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row["route_name"] or "", row["rule"] or "", row["reason"], printable(row["model"]),
            str(row["n_requests"]), str(row["n_failed"]), str(row["n_prompt"] + row["n_generated"]),
            "" if row["ttft_ms"] is None else f"{row['ttft_ms']:.0f}", f"{row['total_ms']:.0f}",
        )  # fmt: skip
    show_table(table)
