"""Requests that are answered in one piece: the model, the second try, the log, without HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from edgeagent.errors import EngineDied, InvalidParameter, ModelNotFound
from edgeagent.serving.one_shot_request import OneShotRequest, OneShotService
from edgeagent.types.unary_requests import EmbedSpec, Vectors
from tests.serving.fakes import ORIGIN, FakeClient, FakeEngines, FakeModels, chooser

MODELS = FakeModels(
    {"generate": ["small"], "embed": ["vectors", "more"]}, aliases={"text-embedding-3": "more"}
)
FOUND = Vectors(n_dimensions=1, data=b"\0\0\x80\x3f", n_prompt=3, queue_ms=1.0, total_ms=2.0)
SPEC = EmbedSpec(inputs=["hello"])


def service(*lives: Any) -> tuple[OneShotService, FakeEngines]:
    """A service whose engine answers question after question with `lives`; an error is raised."""
    left = iter(lives)

    class Client(FakeClient):
        async def ask(self, question: Any) -> Any:
            life = next(left)
            if isinstance(life, Exception):
                raise life
            return life

    engines = FakeEngines()
    engines.clients = {name: Client(name, lambda spec: []) for name in ("small", "vectors", "more")}
    return OneShotService(engines, chooser(MODELS)), engines  # type: ignore[arg-type]


async def asked(services: OneShotService, name: str | None = None) -> OneShotRequest:
    return services.ask(ORIGIN, await services.chooser.for_task("embed", name), SPEC)


async def test_a_result_is_logged_and_counted_for_the_key():
    services, engines = service(FOUND)
    request = await asked(services)
    assert await request.result() == FOUND
    request.release()
    request.release()
    (row,) = engines.rows
    assert (row.model, row.route, row.status, row.n_prompt) == ("vectors", "default", 200, 3)
    assert (request.n_tokens, engines.answered, engines.n_leased) == (3, ["vectors"], 0)


async def test_a_worker_that_dies_is_asked_once_more():
    services, engines = service(EngineDied("Gone."), FOUND)
    request = await asked(services)
    assert await request.result() == FOUND
    services, engines = service(EngineDied("Gone."), EngineDied("Gone again."))
    request = await asked(services)
    with pytest.raises(EngineDied, match="again"):
        await request.result()
    request.release()
    assert engines.rows[0].status == 499 and request.n_tokens == 0 and not engines.n_leased


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, ("vectors", "default")),
        ("default", ("vectors", "default")),
        ("more", ("more", "named")),
        ("text-embedding-3", ("more", "named")),
        ("small", InvalidParameter),
        ("unheard", ModelNotFound),
    ],
)
async def test_the_model_is_the_named_one_or_the_first_of_its_task(name, expected):
    services, _ = service()
    if isinstance(expected, tuple):
        decision = (await asked(services, name)).decision
        assert (decision.model_id, decision.reason) == expected
        return
    with pytest.raises(expected):
        await asked(services, name)


def test_what_all_models_do_goes_to_the_default_text_model():
    services, _ = service()
    assert services.chooser.for_any_task(None).model_id == "small"
    assert services.chooser.for_any_task("text-embedding-3").model_id == "more"
    assert services.chooser.model_id("default") == "small"
