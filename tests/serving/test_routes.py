"""Routes as a request meets them: what the router is told, and what happens where its model fails."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagent.catalog.assistant_intents import Assistant
from edgeagent.device.thermal import read_thermal
from edgeagent.errors import EngineBroken, EngineDied, InsufficientMemory, InvalidParameter
from edgeagent.routing.feature_record import unpacked
from edgeagent.routing.text_features import features
from edgeagent.serving import routes as serving_routes
from edgeagent.serving.chat import ChatInput, ChatService
from edgeagent.serving.routes import Routes, route_request
from edgeagent.settings.routing import RoutingSettings
from edgeagent.types.answer import TokenChunk, TokenLogprob, TopLogprob
from edgeagent.types.generation import Form
from edgeagent.types.prompt import Prompt
from tests.serving.fakes import ORIGIN, FakeEngines, FakeModels, chooser, said, sure
from tests.serving.test_chat import text_of

ASSISTANT = Assistant(domains={"home": ("light",)}, tools={}, thresholds={"all": 0.5})
MODELS = FakeModels({"generate": ["small", "middle", "large"], "embed": ["vectors"]})
CANDIDATES = ["small", "middle", "large"]


def chat(text: str = "hello", model: str = "auto", **fields: Any) -> ChatInput:
    prompt = Prompt(messages=[{"role": "user", "content": text}])
    return ChatInput(model=model, prompts=[prompt], sampling=lambda own: own, **fields)


class Failing(FakeEngines):
    """Engines of which some cannot be leased."""

    def __init__(self, failures: dict[str, Exception], **scripts: Any) -> None:
        super().__init__(**scripts)
        self.failures = failures

    def lease(self, model_id: str) -> Any:
        if model_id in self.failures:
            raise self.failures[model_id]
        return super().lease(model_id)


def engines(**failures: Exception) -> Failing:
    scripts = {name: lambda spec, name=name: said(f"from {name}") for name in CANDIDATES}
    return Failing(failures, **scripts)


def service(engines: FakeEngines, models: FakeModels = MODELS, **settings: Any) -> ChatService:
    given = {"candidates": CANDIDATES} | settings
    return ChatService(engines, chooser(models, **given))  # type: ignore[arg-type]


async def routed(service: ChatService, given: ChatInput) -> tuple[str, str, str]:
    answer = await service.answer(ORIGIN, given)
    text = await text_of(answer)
    return text, answer.decision.model_id, answer.decision.reason


@pytest.mark.parametrize(
    "failure", [EngineBroken("x"), InsufficientMemory("x"), EngineDied("x")], ids=type
)
async def test_a_model_that_cannot_be_loaded_is_replaced_and_avoided_for_a_while(failure):
    failing = engines(small=failure)
    chats = service(failing)
    assert await routed(chats, chat()) == ("from middle", "middle", "fallback")
    del failing.failures["small"]
    assert await routed(chats, chat()) == ("from middle", "middle", "fallback")
    assert await routed(chats, chat(model="small")) == ("from small", "small", "named")


async def test_without_cooldown_it_is_tried_again_at_the_next_request():
    failing = engines(small=EngineDied("x"))
    chats = service(failing, cooldown_s=0)
    assert await routed(chats, chat()) == ("from middle", "middle", "fallback")
    del failing.failures["small"]
    assert await routed(chats, chat()) == ("from small", "small", "default")


async def test_the_fallbacks_of_the_settings_come_first():
    chats = service(engines(small=EngineDied("x")), fallbacks=["large"])
    assert await routed(chats, chat()) == ("from large", "large", "fallback")


async def test_where_every_model_fails_the_last_failure_is_told():
    failing = engines(**{name: InsufficientMemory(name) for name in CANDIDATES})
    with pytest.raises(InsufficientMemory, match="large"):
        await service(failing, cooldown_s=0).answer(ORIGIN, chat())
    assert not failing.n_leased


async def test_a_model_that_the_client_names_is_not_replaced():
    with pytest.raises(EngineDied):
        await routed(service(engines(small=EngineDied("x"))), chat(model="small"))


async def test_a_worker_that_dies_twice_while_it_answers_is_avoided():
    lives = iter([[EngineDied("Gone.")], [EngineDied("Gone again.")], said("alive")])
    failing = engines()
    failing.clients["small"]._script = lambda spec: next(lives)
    chats = service(failing)
    with pytest.raises(EngineDied):
        await routed(chats, chat())
    assert await routed(chats, chat()) == ("from middle", "middle", "fallback")


async def test_the_log_has_the_route_and_the_rule():
    rules = [{"id": "short", "match": {"max_chars": 10}, "route_to": "middle"}]
    failing = engines()
    await routed(service(failing, rules=rules), chat())
    await routed(service(failing, rules=rules), chat(model="large"))
    told = [(row.model, row.route, row.route_name, row.rule) for row in failing.rows]
    assert told == [("middle", "rule", "auto", "short"), ("large", "named", None, None)]


async def test_an_assistant_model_hands_over_to_the_next_candidate_that_is_none():
    models = FakeModels(
        {"generate": CANDIDATES}, assistants={"small": ASSISTANT, "middle": ASSISTANT}
    )
    unsure = engines()
    unsure.clients["small"]._script = lambda spec: [sure(0.1, is_abstained=True)]
    answer = await service(unsure, models).answer(ORIGIN, chat(shows_trace=True))
    await answer.release()
    found = answer.decision
    assert (found.model_id, found.reason, found.route) == ("large", "escalated", "auto")
    assert str(found.trace[-1]) == "model large: escalated (the assistant model abstained)"
    wants_form = chat(form=Form(kind="json_schema", text="{}"))
    assert (await routed(service(engines(), models), wants_form))[1:] == ("large", "fallback")


async def test_an_alias_may_stand_for_a_route_and_a_model_of_that_name_wins():
    models = FakeModels({"generate": CANDIDATES}, aliases={"gpt-4o": "auto:quality"})
    assert (await routed(service(engines(), models), chat(model="gpt-4o")))[1] == "large"
    models = FakeModels({"generate": ["large", "auto"]})
    found = chooser(models, candidates=["large"]).for_text("auto")
    assert (found.model_id, found.reason, found.route) == ("auto", "named", None)


def test_names_of_routes_serve_where_there_is_no_chat():
    found = chooser(MODELS, candidates=CANDIDATES)
    assert found.model_id("auto") == found.for_any_task("auto").model_id == "small"
    assert found.for_plain_text("auto:quality").model_id == "large"


# ---- the trial of a model


def margins(*leads: float) -> list[Any]:
    """The tokens of an answer, each with this lead over the second choice."""
    tops = [[TopLogprob(b"a", -0.1), TopLogprob(b"b", -0.1 - lead)] for lead in leads]
    tokens = [TokenLogprob(b"a", -0.1, top) for top in tops]
    return [TokenChunk(0, "a", logprobs=[token]) for token in tokens]


def tried(*leads: float) -> Failing:
    """Engines whose small model has these leads in a trial."""
    found = engines()
    found.clients["small"]._script = lambda spec: (
        margins(*leads) if spec.logprobs == 2 else said("from small")
    )
    return found


async def test_a_model_that_guesses_hands_over_before_anything_is_shown():
    sure_, guessing = tried(3.0, 0.1, 2.0), tried(0.2, 0.1, 2.0)
    assert await routed(service(sure_, cascade_tokens=3), chat()) == (
        "from small",
        "small",
        "default",
    )
    given = chat(shows_trace=True, max_tokens=40)
    answer = await service(guessing, cascade_tokens=3).answer(ORIGIN, given)
    assert await text_of(answer) == "from middle"
    assert (answer.decision.reason, answer.decision.route) == ("escalated", "auto")
    told = [str(step) for step in answer.decision.trace[-2:]]
    assert told == [
        "model small: is not sure (mean margin 0.767 over 3 tokens)",
        "model middle: escalated (the next candidate)",
    ]
    (trial,) = guessing.clients["small"].specs
    assert (trial.max_tokens, trial.logprobs, trial.n) == (3, 2, 1)
    assert guessing.clients["small"].generations[0].is_cancelled and not guessing.n_leased
    assert guessing.clients["middle"].specs[0].max_tokens == 40
    assert guessing.clients["middle"].specs[0].logprobs is None


async def test_a_trial_is_never_longer_than_the_answer_may_be():
    found = tried(3.0)
    await routed(service(found, cascade_tokens=32), chat(max_tokens=2))
    assert found.clients["small"].specs[0].max_tokens == 2


async def test_where_no_larger_model_can_be_loaded_the_small_one_answers_after_all():
    found = tried(0.1)
    found.failures = {"middle": InsufficientMemory("x"), "large": EngineBroken("x")}
    assert await routed(service(found, cascade_tokens=3), chat()) == (
        "from small",
        "small",
        "default",
    )
    found = tried(0.1)
    found.failures = {"middle": InsufficientMemory("x")}
    answered = await routed(service(found, cascade_tokens=3), chat())
    assert answered == ("from large", "large", "escalated")


@pytest.mark.parametrize(
    ("metadata", "settings"), [({"escalate": "false"}, {}), ({}, {"escalate": False})]
)
async def test_a_client_and_the_settings_may_forbid_the_trial(metadata, settings):
    found = tried(0.1)
    chats = service(found, cascade_tokens=3, **settings)
    assert (await routed(chats, chat(metadata=metadata)))[1] == "small"
    assert len(found.clients["small"].specs) == 1


# ---- what the router is told


def test_the_last_message_of_the_user_is_the_text_and_all_messages_the_length():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "last"},
        {"role": "tool", "content": "result"},
    ]
    found = route_request("auto", ORIGIN, [Prompt(messages=messages)])
    assert (found.text, found.n_chars) == ("last", 24)
    assert (found.key_id, found.owner) == ("key_ann", "ann")
    plain = route_request("auto", None, [Prompt(text="once"), Prompt(tokens=[1])])
    assert (plain.text, plain.n_chars, plain.key_id) == ("once", 4, "local")


def test_the_router_knows_how_many_daemons_a_request_has_come_through():
    request = route_request("auto", replace(ORIGIN, n_hops=3))
    assert request.n_hops == request.sender.n_hops == 3


def test_privacy_comes_from_the_metadata_or_the_route():
    assert route_request("auto", metadata={"privacy": "local"}).privacy == "local"
    assert route_request("auto:local").privacy == "local"
    assert route_request("auto").privacy == "any"
    with pytest.raises(InvalidParameter, match="privacy"):
        route_request("auto", metadata={"privacy": "x" * 1_000_000})


def test_the_state_has_loaded_models_queues_heat_and_power(tmp_path: Path):
    supply = tmp_path / "sys/class/power_supply/BAT0"
    supply.mkdir(parents=True)
    for name, text in (("type", "Battery"), ("status", "Discharging"), ("capacity", "17")):
        (supply / name).write_text(text)
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    for name, text in (("type", "cpu"), ("temp", "71500")):
        (zone / name).write_text(text)
    health = SimpleNamespace(n_running=2, n_waiting=3)
    loaded = SimpleNamespace(
        model_id="large", state="loaded", client=SimpleNamespace(health=health)
    )
    rules = [{"id": "hot", "match": {"min_temp_c": 70}, "route_to": "small"}]
    found = Routes(RoutingSettings(rules=rules), MODELS, lambda: [loaded], tmp_path)  # type: ignore[arg-type, list-item, return-value]
    state = found.state()
    assert set(state.models) == {"small", "middle", "large"}
    assert (state.models["large"].is_resident, state.models["large"].n_busy) == (True, 5)
    assert (state.models["small"].is_resident, state.models["small"].n_busy) == (False, 0)
    assert (state.is_on_battery, state.battery_percent, state.hottest_c) == (True, 17, 71.5)
    plain = Routes(RoutingSettings(), MODELS, list, tmp_path)  # type: ignore[arg-type]
    assert plain.state().hottest_c is None, "nothing is read that no rule needs"


async def test_the_device_is_read_beside_the_event_loop(tmp_path: Path, monkeypatch):
    """Drivers may be slow: a request does not wait for them, and the next ones see what they said."""
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu")
    (zone / "temp").write_text("40000")
    monkeypatch.setattr(serving_routes, "DEVICE_AGE_S", 0.0)
    loop_thread, threads = threading.get_ident(), []

    def read(tree):
        threads.append(threading.get_ident())
        return read_thermal(tree)

    monkeypatch.setattr(serving_routes, "read_thermal", read)
    rules = [{"id": "hot", "match": {"min_temp_c": 70}, "route_to": "small"}]
    routes = Routes(RoutingSettings(rules=rules), MODELS, list, tmp_path)  # type: ignore[arg-type]
    await routes.prepare(None)
    assert routes.state().hottest_c == 40 and len(threads) == 1
    (zone / "temp").write_text("75000")
    assert routes.state().hottest_c == 40
    async with asyncio.timeout(30):
        while routes.state().hottest_c != 75:
            await asyncio.sleep(0.01)
    assert loop_thread not in threads


async def test_the_log_has_what_the_route_chose_and_what_answered():
    failing = engines()
    metadata = {"domain": "home", "subject": "mr-17"}
    await routed(service(failing, explore=0.5), chat("set a timer", metadata=metadata))
    found = failing.rows[-1].decision
    assert (found.answered, found.default_model) == (found.chosen, "small")
    assert found.chances == {"small": 0.5 + 0.5 / 3, "middle": 0.5 / 3, "large": 0.5 / 3}
    assert (found.domain, found.subject, found.owner) == ("home", "mr-17", "ann")
    assert unpacked(found.features()).counts == features("set a timer").counts
    await routed(service(failing), chat("set a timer", metadata={"privacy": "local"}))
    assert failing.rows[-1].decision.features is None
    await routed(service(failing), chat(model="small"))
    assert failing.rows[-1].decision is None
    await routed(service(failing, record="off"), chat())
    assert failing.rows[-1].decision is None
