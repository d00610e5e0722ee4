"""An answer whose upstreams have not begun gets another model of its route."""

from __future__ import annotations

import asyncio
import gc

import pytest

from edgeagent.errors import UpstreamFailed, UpstreamUnavailable
from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from tests.serving.fakes import ORIGIN, FakeEngines, said

AWAY = UpstreamUnavailable("Nobody has begun.")
SPEC = GenerateSpec(prompts=[Prompt(messages=[{"role": "user", "content": "x"}])])


def redirected(engines: FakeEngines, *others: str, opened: asyncio.Event | None = None):
    """An answer of `big`, and what its redirection was asked."""
    asked: list[frozenset[str]] = []
    left = list(others)

    async def redirect(failed: frozenset[str]):
        asked.append(failed)
        if opened is not None:
            await opened.wait()
        return (Decision(left.pop(0), "fallback", route="auto"), SPEC) if left else None

    answer = Answer(ORIGIN, Decision("big", "rule", route="auto"), SPEC, engines)
    answer.redirect_with(redirect)
    return answer, asked


async def test_the_next_models_are_asked_until_one_begins():
    engines = FakeEngines(
        big=lambda spec: [AWAY], other=lambda spec: [AWAY], small=lambda spec: said("Good")
    )
    answer, asked = redirected(engines, "other", "small")
    await answer.begin()
    chunks = [*await answer.take(), *await answer.take()]
    assert "".join(chunk.text for chunk in chunks) == "Good"
    assert asked == [frozenset({"big"}), frozenset({"big", "other"})]
    await answer.release()
    assert engines.n_leased == 0 and engines.rows[0].model == "small"


async def test_without_another_model_the_error_is_told():
    engines = FakeEngines(big=lambda spec: [AWAY])
    answer, _ = redirected(engines)
    await answer.begin()
    with pytest.raises(UpstreamUnavailable):
        await answer.take()
    await answer.release()


async def test_nothing_is_repeated_after_the_first_piece_or_another_fault():
    for steps in ([*said("Good day")[:1], AWAY], [UpstreamFailed("nonsense")]):
        engines = FakeEngines(big=lambda spec, steps=steps: steps, small=lambda spec: said("x"))
        answer, asked = redirected(engines, "small")
        await answer.begin()
        with pytest.raises((UpstreamUnavailable, UpstreamFailed)):
            while await answer.take():
                pass
        await answer.release()
        assert asked == []


async def test_a_reader_that_is_cancelled_by_a_ping_finds_the_same_redirection():
    opened = asyncio.Event()
    engines = FakeEngines(big=lambda spec: [AWAY], small=lambda spec: said("Good"))
    answer, asked = redirected(engines, "small", opened=opened)
    await answer.begin()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await answer.take()
    opened.set()
    assert (await answer.take())[0].text == "Go"
    assert asked == [frozenset({"big"})]
    await answer.release()


async def test_a_redirection_that_fails_as_the_client_leaves_is_no_traceback():
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    answer, _ = redirected(FakeEngines(big=lambda spec: [UpstreamUnavailable("Nobody.")]))

    async def fail(failed: frozenset[str]):
        try:
            await asyncio.Event().wait()
        finally:  # as where a deadline expires meanwhile
            raise UpstreamFailed("It fails.")

    answer.redirect_with(fail)
    await answer.begin()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await answer.take()
    await answer.release()
    del answer
    gc.collect()
    await asyncio.sleep(0)
    assert not told


async def test_a_client_that_leaves_meanwhile_leaves_nothing_behind():
    engines = FakeEngines(big=lambda spec: [AWAY], small=lambda spec: said("Good"))
    answer, _ = redirected(engines, "small", opened=asyncio.Event())
    await answer.begin()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await answer.take()
    await answer.release()
    assert engines.n_leased == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "redirect"]
