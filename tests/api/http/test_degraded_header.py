"""How clients learn that answers are slower than usual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from edgeagent.daemon.app import Daemon
from edgeagent.device.configuration import configure
from edgeagent.types.throttle import Throttle
from tests.serving.test_metrics import samples

pytestmark = pytest.mark.filterwarnings(
    "ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning"
)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    settings = {"state_dir": tmp_path / "state", "models_dir": tmp_path}
    daemon = Daemon(configure(flags=settings))
    yield daemon
    await daemon.close()


async def test_reasons_are_in_the_readiness_the_metrics_and_a_header_while_they_last(
    daemon: Daemon,
):
    transport = httpx.ASGITransport(app=daemon.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8484") as http:
        reply = await http.get("/ready")
        assert reply.json()["degraded"] == []
        assert "x-edgeagent-degraded" not in reply.headers
        daemon.pool.cores.hold_back(Throttle(n_threads=1, reasons=("contention", "heat")))
        reply = await http.get("/ready")
        assert reply.json()["degraded"] == ["contention", "heat"]
        for path in ("/ready", "/health", "/v1/models", "/no/such/path"):
            reply = await http.get(path)
            assert reply.headers["x-edgeagent-degraded"] == "contention,heat", path
        found = samples((await http.get("/metrics")).content)
        assert found["edgeagent:degraded{reason=heat}"] == 1
        assert found["edgeagent:degraded{reason=battery}"] == 0
        daemon.pool.cores.hold_back(Throttle())
        assert "x-edgeagent-degraded" not in (await http.get("/ready")).headers
