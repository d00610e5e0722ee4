"""The screen of `edgeagent top` (needs the extra `top`: textual)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx
from textual.app import App, ComposeResult
from textual.widgets import DataTable, Footer, Static

from edgeagent.cli.shared.daemon import authorization, refusal_of
from edgeagent.cli.shared.top_figures import ModelFigures, Sample, TopFigures, figures
from edgeagent.errors import EdgeAgentError, StartFailed

COLUMNS = (
    "model", "memory", "running", "waiting", "KV", "requests/s", "tokens/s", "prompt/s", "first token",
    "between", "queue", "deaths",
)  # fmt: skip


REQUEST_COLUMNS = (
    "ended", "path", "model", "why", "status", "prompt", "cached", "answer", "queue", "first token", "total",
)  # fmt: skip


class Daemon:
    """The metrics of a running daemon, and its last requests."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url
        self._client = httpx.AsyncClient(
            base_url=url, timeout=5, trust_env=False, headers=authorization(), transport=transport
        )

    async def sample(self) -> Sample:
        """Raises: StartFailed where no daemon answers, or another program; EdgeAgentError with its message if
        it refuses."""
        reply = await self._get("/metrics")
        if reply.status_code != 200:
            raise refusal_of(reply.status_code, reply.content)
        try:
            return Sample.parsed(reply.text, time.monotonic())
        except ValueError as exc:
            raise StartFailed(
                f"What answers at {self.url} is not edgeagent: give the --port of the daemon."
            ) from exc

    async def requests(self) -> list[dict[str, Any]]:
        """The last requests by counts and times, the newest first; none of a daemon that does not tell.

        Raises: as `sample`."""
        reply = await self._get("/metrics/requests")
        if reply.status_code != 200:
            return []
        return list(reply.json()["data"])

    async def _get(self, path: str) -> httpx.Response:
        try:
            return await self._client.get(path)
        except httpx.TransportError as exc:
            raise StartFailed(
                f"No daemon answers at {self.url}: start one with `edgeagent serve`, or give its --port."
            ) from exc

    async def close(self) -> None:
        await self._client.aclose()


class Top(App[None]):
    """The screen: a line about the device, the models, a line of what was refused, the last requests."""

    BINDINGS: ClassVar = [("q", "quit", "Quit")]
    CSS = "DataTable { height: 1fr; } Static { height: auto; padding: 0 1; }"

    def __init__(self, daemon: Daemon, interval_s: float) -> None:
        super().__init__()
        self._daemon = daemon
        self._interval_s = interval_s
        self._before: Sample | None = None

    def compose(self) -> ComposeResult:
        yield Static("", id="device", markup=False)
        yield DataTable(id="models", cursor_type="none")
        yield Static("", id="refused", markup=False)
        yield DataTable(id="requests", cursor_type="none")
        yield Footer()

    async def on_mount(self) -> None:
        self.query_one("#models", DataTable).add_columns(*COLUMNS)
        self.query_one("#requests", DataTable).add_columns(*REQUEST_COLUMNS)
        await self.refresh_figures()
        self.set_interval(self._interval_s, self.refresh_figures)

    async def on_unmount(self) -> None:
        await self._daemon.close()

    async def refresh_figures(self) -> None:
        """Ask once more, and show what has happened since."""
        try:
            now, requests = await self._daemon.sample(), await self._daemon.requests()
        except EdgeAgentError as exc:
            self.query_one("#device", Static).update(exc.message)
            return
        self._show(figures(self._before or now, now), requests)
        self._before = now

    def _show(self, found: TopFigures, requests: list[dict[str, Any]]) -> None:
        self.query_one("#device", Static).update(device_line(found))
        self.query_one("#refused", Static).update(refused_line(found))
        table = self.query_one("#models", DataTable)
        table.clear()
        for model in found.models:
            table.add_row(*cells(model))
        table = self.query_one("#requests", DataTable)
        table.clear()
        for request in requests:
            table.add_row(*request_cells(request))


def device_line(found: TopFigures) -> str:
    """Memory, heat and the store in one line."""
    used = sum(model.rss_bytes for model in found.models)
    budget = f" of {_mb(found.budget_bytes)}" if found.budget_bytes is not None else ""
    parts = [
        f"edgeagent {found.version}",
        f"workers {_mb(used)}{budget}",
        f"daemon {_mb(found.daemon_bytes)}",
        f"store {_mb(found.store_bytes)}",
    ]
    if found.hottest_c is not None:
        parts.append(f"{found.hottest_c:.0f} °C")
    if found.throttled:
        parts.append(f"throttled: {', '.join(found.throttled)}")
    if found.degraded:
        parts.append(f"degraded: {', '.join(found.degraded)}")
    return " | ".join(parts)


def refused_line(found: TopFigures) -> str:
    if not found.refused_per_s:
        return "nothing is refused"
    shown = ", ".join(f"{reason} {rate:.1f}/s" for reason, rate in found.refused_per_s.items())
    return f"refused for now: {shown}"


def cells(model: ModelFigures) -> tuple[str, ...]:
    """The row of a model, in the order of COLUMNS."""
    if not model.is_loaded:
        rest = ("",) * (len(COLUMNS) - 3)
        return (model.model_id, "unloaded", *rest, str(model.n_deaths or ""))
    return (
        model.model_id,
        _mb(model.rss_bytes),
        str(model.n_running),
        str(model.n_waiting),
        f"{100 * model.kv_used:.0f}%" if model.kv_used is not None else "",
        f"{model.requests_per_s:.1f}",
        f"{model.generated_per_s:.1f}",
        f"{model.prompt_per_s:.1f}",
        _ms(model.ttft_s),
        _ms(model.token_gap_s),
        _ms(model.queue_s),
        str(model.n_deaths or ""),
    )


def request_cells(request: Mapping[str, Any]) -> tuple[str, ...]:
    """The row of a request, in the order of REQUEST_COLUMNS."""

    def ms(name: str) -> str:
        value = request[name]
        return "" if value is None else f"{value:,.0f} ms"

    name = request["route_name"]
    return (
        time.strftime("%H:%M:%S", time.localtime(request["created_ms"] / 1e3)),
        request["endpoint"],
        request["model"],
        f"{name}: {request['route']}" if name else request["route"],
        f"{request['status']} {request['finish'] or ''}".strip(),
        str(request["n_prompt"]),
        str(request["n_cached"]),
        str(request["n_generated"]),
        ms("queue_ms"),
        ms("ttft_ms"),
        ms("total_ms"),
    )


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:,.0f} ms"
