"""`edgeagent top`: figures out of two samples, and the screen over a daemon that the test plays."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from edgeagent.cli.shared import top_figures
from edgeagent.cli.shared.top_figures import Sample, figures
from edgeagent.cli.shared.top_screen import (
    COLUMNS,
    REQUEST_COLUMNS,
    Daemon,
    Top,
    cells,
    device_line,
    refused_line,
    request_cells,
)
from edgeagent.errors import EdgeAgentError, StartFailed
from edgeagent.serving import gauges
from edgeagent.serving.metrics import Metrics
from edgeagent.serving.recent_requests import RecentRequest
from tests.commands import run_here
from tests.serving.test_metrics import ANSWER, GAUGES


def texts() -> tuple[str, str]:
    """The metrics of a daemon before and after two answers and a refusal."""
    counted = Metrics()
    counted.end_request(ANSWER)
    before = counted.text(GAUGES).decode()
    for _ in range(2):
        counted.end_request(ANSWER)
    counted.refuse("queue_full", is_temporary=True)
    return before, counted.text(GAUGES).decode()


def test_rates_and_means_are_those_between_two_samples():
    before, after = texts()
    found = figures(Sample.parsed(before, 10.0), Sample.parsed(after, 12.0))
    (model,) = found.models
    assert (model.model_id, model.is_loaded, model.n_running, model.n_waiting) == ("a", True, 2, 1)
    assert model.generated_per_s == 3.0 and model.prompt_per_s == 10.0
    assert model.requests_per_s == 1.0
    assert model.ttft_s == pytest.approx(0.2) and model.queue_s == pytest.approx(0.01)
    assert model.token_gap_s is None, "no token came in between"
    assert found.refused_per_s == {"queue_full": 0.5}
    assert found.hottest_c == 61.5 and found.throttled == ("throttled",)
    assert found.degraded == ("heat",)
    assert found.version == "1.2.3" and found.store_bytes == 4096


def test_the_names_are_those_of_the_metrics():
    assert (top_figures.PREFIX, top_figures.MODEL) == (gauges.PREFIX, gauges.MODEL)


def test_counters_that_began_anew_are_not_negative():
    before, after = texts()
    found = figures(Sample.parsed(after, 0.0), Sample.parsed(before, 1.0))
    assert found.models[0].generated_per_s == 3.0


def test_lines_and_cells_show_what_there_is():
    before, after = texts()
    found = figures(Sample.parsed(before, 10.0), Sample.parsed(after, 12.0))
    assert "61 °C" in device_line(found) or "62 °C" in device_line(found)
    assert device_line(found).endswith("degraded: heat")
    assert refused_line(found) == "refused for now: queue_full 0.5/s"
    shown = dict(zip(COLUMNS, cells(found.models[0]), strict=True))
    assert shown["first token"] == "200 ms" and shown["KV"] == "25%" and shown["between"] == ""


# As /metrics/requests has it.
REQUEST: dict[str, Any] = {
    "created_ms": 1_800_000_000_000, "endpoint": "/v1/chat/completions", "model": "a", "route": "domain",
    "route_name": "auto", "status": 200, "finish": "stop", "n_prompt": 10, "n_cached": 4, "n_generated": 3,
    "queue_ms": None, "ttft_ms": 200.4, "total_ms": 1500.0, "audio_s": None,
}  # fmt: skip


def test_the_row_of_a_request_shows_counts_and_times():
    shown = dict(zip(REQUEST_COLUMNS, request_cells(REQUEST), strict=True))
    assert shown["why"] == "auto: domain" and shown["status"] == "200 stop"
    assert (
        shown["queue"] == "" and shown["first token"] == "200 ms" and shown["total"] == "1,500 ms"
    )
    unnamed = REQUEST | {"route_name": None, "finish": None, "status": 503}
    shown = dict(zip(REQUEST_COLUMNS, request_cells(unnamed), strict=True))
    assert shown["why"] == "domain" and shown["status"] == "503"
    assert REQUEST.keys() == set(RecentRequest.__struct_fields__)


def played(*replies: Any) -> Daemon:
    left = list(replies)

    def answer(request: httpx.Request) -> httpx.Response:
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    return Daemon("http://127.0.0.1:1", httpx.MockTransport(answer))


async def test_refusals_have_a_way_out():
    error = {"error": {"message": "No key."}}
    daemon = played(httpx.Response(401, json=error))
    with pytest.raises(EdgeAgentError, match="EDGEAGENT_API_KEY"):
        await daemon.sample()
    await daemon.close()
    daemon = played(httpx.ConnectError("refused"))
    with pytest.raises(StartFailed, match="edgeagent serve"):
        await daemon.sample()
    await daemon.close()
    daemon = played(httpx.Response(200, text="<!doctype html>\n<p>{another} server</p>"))
    with pytest.raises(StartFailed, match="is not edgeagent: give the --port"):
        await daemon.sample()
    await daemon.close()


async def test_the_screen_shows_the_models_and_goes_on_when_the_daemon_is_gone():
    before, after = texts()
    listed = {"object": "list", "data": [dict(REQUEST)]}
    daemon = played(
        httpx.Response(200, text=before),
        httpx.Response(404, json={}),  # an older daemon, which does not tell them
        httpx.Response(200, text=after),
        httpx.Response(200, json=listed),
        httpx.ConnectError("gone"),
    )
    app = Top(daemon, interval_s=3600)
    async with app.run_test(size=(160, 20)) as pilot:
        await app.refresh_figures()
        await pilot.pause()
        table: Any = app.query_one("#models")
        assert table.row_count == 1 and table.get_row_at(0)[0] == "a"
        assert "queue_full" in str(app.query_one("#refused").render())
        requests: Any = app.query_one("#requests")
        assert requests.row_count == 1 and "auto: domain" in requests.get_row_at(0)
        await app.refresh_figures()
        await pilot.pause()
        assert "No daemon answers" in str(app.query_one("#device").render())
        await pilot.press("q")


def test_without_a_terminal_it_says_what_to_use():
    done = run_here("top", "--port", "1")
    assert done.returncode != 0
    assert "GET /metrics" in done.stderr and "\n" not in done.stderr.strip()
    assert done.stdout == ""
