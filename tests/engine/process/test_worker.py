"""A real worker process on a real model: what the engine promises, end to end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from edgeagent.device.step_cost_store import StepCostStore
from edgeagent.engine.client import EngineClient, Generation
from edgeagent.errors import (
    ContextLengthExceeded,
    EngineDied,
    InvalidParameter,
    ModelUnusable,
    QueueFull,
    TemplateFailed,
)
from edgeagent.pool.step_cost_keeper import StepCostKeeper
from edgeagent.types.answer import TokenChunk
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.kv_state import (
    CachedLengthSpec,
    CachedTokensSpec,
    LoadCellsSpec,
    ReadCellsSpec,
)
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from edgeagent.types.unary_requests import TokenizeSpec
from edgeagent.types.worker_config import ComputeLimits
from tests.conftest import N_THREADS, wait_for

GREEDY = Sampling(temperature=0)


def config(path: Path, **options: object) -> EngineConfig:
    return EngineConfig(
        **(
            {"model_id": "stories", "path": str(path), "n_ctx": 512, "n_threads": N_THREADS}
            | options
        )
    )


def spec(text: str = "Once upon a time", max_tokens: int = 24, **options: object) -> GenerateSpec:
    return GenerateSpec(
        **({"prompts": [Prompt(text=text)], "max_tokens": max_tokens, "sampling": GREEDY} | options)
    )


async def collect(generation: Generation) -> tuple[str, TokenChunk]:
    text, last = "", None
    async for chunk in generation:
        text, last = text + chunk.text, chunk
    assert last is not None
    return text, last


async def token_of(engine: EngineClient, letter: str) -> int:
    """The token that is `letter` alone, without a space before it."""
    tokens = await engine.ask(TokenizeSpec(text=f"x{letter}"))
    return tokens[-1]


@pytest.fixture(scope="module")
async def engine(stories: Path) -> AsyncIterator[EngineClient]:
    client = await EngineClient.start(config(stories), timeout_s=60)
    yield client
    await client.close()
    await client.close()


async def test_a_story_is_told_and_told_again_the_same(engine):
    text, last = await collect(engine.generate(spec()))
    assert text.startswith(" there was")
    assert (last.finish, last.usage.n_generated) == ("length", 24)
    again, last = await collect(engine.generate(spec()))
    assert again == text
    assert last.usage.n_cached == last.usage.n_prompt - 1


async def test_what_one_scope_has_cached_is_forgotten_and_what_another_has_is_kept(engine):
    text = "Lily and Tom went to the park to play with their big red ball"
    for scope in ("a", "b"):
        await collect(engine.generate(spec(text, scope=scope)))
    engine.forget_prefixes("a")
    cached = {}
    for scope in ("a", "b"):
        _, last = await collect(engine.generate(spec(text, scope=scope)))
        cached[scope] = last.usage.n_cached
    assert cached["a"] == 0 < cached["b"]
    engine.forget_prefixes(None)
    _, last = await collect(engine.generate(spec(text, scope="b")))
    assert last.usage.n_cached == 0


async def test_the_facts_are_the_models_own(engine):
    facts = engine.facts
    assert facts.n_params == 292_800 or 200_000 < facts.n_params < 400_000
    assert (facts.n_vocab, facts.n_ctx_slot, facts.has_chat_template) == (512, 512, False)
    assert facts.kv_bytes == 2 * 5 * 4 * 8 * 512 * 2  # K and V, layers, heads, width, cells, f16


async def test_a_chat_with_a_model_that_has_no_template_is_refused_with_the_way_out(engine):
    with pytest.raises(TemplateFailed, match=r"has no chat template.*completions"):
        await collect(
            engine.generate(spec(prompts=[Prompt(messages=[{"role": "user", "content": "x"}])]))
        )


async def test_a_template_given_by_hand_is_used(stories):
    client = await EngineClient.start(
        config(stories, chat_template="{{ messages[0].content }}"), timeout_s=60
    )
    chat = spec(prompts=[Prompt(messages=[{"role": "user", "content": "Once upon a time"}])])
    text, _ = await collect(client.generate(chat))
    assert text.startswith(" there was")
    await client.close()


async def test_an_idle_worker_measures_its_steps_which_are_kept_for_the_next_load(
    stories, tmp_path
):
    options = {"n_ctx": 1024, "n_batch": 128, "measures_steps": True}
    client = await EngineClient.start(config(stories, **options), timeout_s=60)
    store = StepCostStore(tmp_path, "device")
    StepCostKeeper(store).expect("stories", client)
    async with asyncio.timeout(60):
        while (costs := store.load(client.config)) is None:
            await asyncio.sleep(0.05)
    assert {1, 8, 64, 128} <= costs.step_s.keys() and all(s > 0 for s in costs.step_s.values())
    for n_taken in (1, 0):  # confined as it is, a worker can change how its threads wait
        client.set_limits(ComputeLimits(n_threads=N_THREADS, n_cores_taken=n_taken))
        text, _ = await collect(client.generate(spec()))
        assert text.startswith(" there was")
    await client.close()


async def test_cells_take_memory_once_they_are_used_and_are_reserved_until_then(engine, stories):
    wide = await EngineClient.start(
        config(stories, n_ctx=1 << 17, cells_on_demand=True), timeout_s=60
    )
    try:
        kv_bytes = wide.facts.kv_bytes
        rss = [psutil.Process(client.pid).memory_info().rss for client in (engine, wide)]
        assert rss[1] - rss[0] < kv_bytes / 2
        async with asyncio.timeout(60):
            while not wide.health.reserved_bytes:
                await asyncio.sleep(0.02)
        before = wide.health.reserved_bytes
        assert 0.9 * kv_bytes < before <= kv_bytes
        _, last = await collect(wide.generate(spec(max_tokens=100)))
        assert last.error is None
        async with asyncio.timeout(60):
            while wide.health.reserved_bytes >= before:
                await asyncio.sleep(0.02)
    finally:
        await wide.close()


async def test_what_can_never_fit_is_refused_with_the_numbers(engine):
    with pytest.raises(
        ContextLengthExceeded,
        match=r"prompt is too long.*[67]\d\d tokens.*context length is 512 tokens",
    ):
        await collect(engine.generate(spec("one two three four five six " * 40)))
    with pytest.raises(ContextLengthExceeded, match=r"together 5\d\d.*at most") as caught:
        await collect(engine.generate(spec(max_tokens=510)))
    assert caught.value.param == "max_tokens"


async def test_a_length_that_is_brought_down_fills_the_context_and_says_so(engine):
    generation = engine.generate(spec(max_tokens=9_999, clamps=True, ignore_eos=True))
    _, last = await collect(generation)
    assert last.finish == "length"
    assert last.usage.n_prompt + last.usage.n_generated == 512
    assert generation.facts.max_tokens == last.usage.n_generated
    assert generation.facts.n_prompt == last.usage.n_prompt
    short = engine.generate(spec(max_tokens=4, clamps=True))
    await collect(short)
    assert short.facts.max_tokens is None and short.facts.n_cached == short.facts.n_prompt - 1
    with pytest.raises(ContextLengthExceeded, match="prompt is too long"):
        await collect(engine.generate(spec("one two three four " * 60, clamps=True)))


async def test_what_was_computed_of_a_cancelled_answer_is_still_told(engine):
    generation = engine.generate(spec(max_tokens=400, n=2, ignore_eos=True))
    seen = await generation.take()
    generation.cancel()
    generation.cancel()
    while chunks := await generation.take():
        seen += chunks
    ends = {chunk.index: chunk for chunk in seen if chunk.finish is not None}
    assert {end.finish for end in ends.values()} == {"cancelled"} and len(ends) == 2
    assert all(0 < end.usage.n_generated < 400 for end in ends.values())
    assert engine.n_open == 0


@pytest.mark.parametrize("token", [-1, 512, 2**31 - 1])
async def test_tokens_outside_the_vocabulary_are_refused(engine, token):
    with pytest.raises(InvalidParameter, match="outside the model's vocabulary of 512"):
        await collect(engine.generate(spec(prompts=[Prompt(tokens=[1, token])])))
    with pytest.raises(InvalidParameter, match="logit_bias"):
        await collect(engine.generate(spec(sampling=Sampling(logit_bias={token: 1.0}))))


async def test_an_empty_prompt_begins_with_the_models_own_beginning(engine):
    _, last = await collect(engine.generate(spec("")))
    assert last.usage.n_prompt == 1


async def test_a_beginning_that_is_written_out_is_not_doubled(engine):
    _, plain = await collect(engine.generate(spec("Once")))
    marked = Prompt(text="<s>Once", parse_special=True)
    _, written = await collect(engine.generate(spec(prompts=[marked])))
    assert abs(written.usage.n_prompt - plain.usage.n_prompt) <= 1  # "<s>Once" lacks the space


async def test_eight_at_once_of_mixed_length_are_answered_in_full_and_each_by_its_own_tokens(
    engine,
):
    def batch() -> list[GenerateSpec]:
        words = [
            "Once",
            "The cat",
            "A big dog",
            "Lily",
            "One day",
            "Tom and Sam",
            "Mom",
            "There was",
        ]
        return [
            spec(f"{word} {'very ' * i}", max_tokens=10 + 7 * i, ignore_eos=True)
            for i, word in enumerate(words)
        ]

    async def run(specs: list[GenerateSpec]) -> list[str]:
        results = await asyncio.gather(*(collect(engine.generate(s)) for s in specs))
        assert [last.usage.n_generated for _, last in results] == [10 + 7 * i for i in range(8)]
        return [text for text, _ in results]

    texts = await run(batch())
    # The greedy texts of a batch differ in their last bits from run to run. What must not differ is
    # whose text it is: a bias on one token makes each answer recognizable as its own.
    marks = [await token_of(engine, letter) for letter in "abcdefgh"]
    marked = [
        msgspec.structs.replace(s, sampling=Sampling(temperature=0, logit_bias={mark: 100.0}))
        for s, mark in zip(batch(), marks, strict=True)
    ]
    assert all(texts)
    for i, (letter, text) in enumerate(zip("abcdefgh", await run(marked), strict=True)):
        assert text == letter * (10 + 7 * i)


async def test_several_prompts_and_answers_are_numbered_prompt_by_prompt(engine):
    prompts = [Prompt(text="Once upon a time"), Prompt(text="The cat")]
    generation = engine.generate(
        spec(prompts=prompts, n=2, max_tokens=6, sampling=Sampling(temperature=1, seed=5))
    )
    texts = dict.fromkeys(range(4), "")
    async for chunk in generation:
        texts[chunk.index] += chunk.text
    assert all(texts.values())
    assert texts[0] != texts[1]


async def test_the_same_seed_request_and_cache_give_the_same_text(stories):
    """On a fresh worker each: where cells lie in a used cache changes the last bits of the logits."""

    async def tell(seed: int) -> list[str]:
        client = await EngineClient.start(config(stories), timeout_s=60)
        sampled = spec(sampling=Sampling(temperature=1.2, seed=seed), max_tokens=40)
        texts = [(await collect(client.generate(sampled)))[0] for _ in range(3)]
        await client.close()
        return texts

    first = await tell(11)
    assert await tell(11) == first
    assert await tell(12) != first


async def test_reproducible_texts_do_not_depend_on_who_runs_beside_them(shallow):
    """Five of mixed length, alone and as a batch: the same texts to the letter."""
    client = await EngineClient.start(
        config(shallow, model_id="shallow", reproducible=True, n_ctx=4096), timeout_s=60
    )
    topics = ["rivers", "old lighthouses", "2+2", "a fox", "colours"]

    def requests() -> list[GenerateSpec]:
        return [
            spec(
                prompts=[Prompt(messages=[{"role": "user", "content": f"Write about {topic}."}])],
                max_tokens=6 + 3 * i,
            )
            for i, topic in enumerate(topics)
        ]

    alone = [(await collect(client.generate(request)))[0] for request in requests()]
    batch = await asyncio.gather(*(collect(client.generate(request)) for request in requests()))
    assert [text for text, _ in batch] == alone
    await client.close()


async def test_a_cancelled_request_frees_its_place(stories):
    client = await EngineClient.start(config(stories, n_seq=1, n_prefixes=0), timeout_s=60)
    running = client.generate(spec(max_tokens=500, ignore_eos=True))
    await running.take()
    queued = client.generate(spec(max_tokens=500, ignore_eos=True))
    queued.cancel()
    running.cancel()
    running.cancel()
    text, last = await collect(client.generate(spec(max_tokens=5)))
    assert text
    assert last.usage.queue_ms < 5_000
    await client.close()


async def test_a_full_queue_refuses_at_once_with_a_time_to_come_again(stories):
    client = await EngineClient.start(config(stories, n_seq=1, queue_limit=1), timeout_s=60)
    many = [client.generate(spec(max_tokens=200, ignore_eos=True)) for _ in range(12)]
    results = await asyncio.gather(*map(collect, many), return_exceptions=True)
    refused = [result for result in results if isinstance(result, QueueFull)]
    assert refused
    assert len(refused) + sum(isinstance(result, tuple) for result in results) == 12
    assert all(error.retry_after_s and error.retry_after_s <= 120 for error in refused)
    await client.close()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_the_death_of_the_worker_ends_every_stream_with_an_error(stories, signum):
    deaths = []
    client = await EngineClient.start(
        config(stories), timeout_s=60, on_death=lambda client, status: deaths.append(status)
    )
    generations = [client.generate(spec(max_tokens=480, ignore_eos=True)) for _ in range(3)]
    await generations[0].take()
    assert client.pid is not None
    os.kill(client.pid, signum)
    for generation in generations:
        with pytest.raises(EngineDied, match=signum.name):
            while await generation.take():
                pass
    assert deaths == [-signum]
    with pytest.raises(EngineDied):
        client.generate(spec())
    await client.close()


async def test_the_worker_is_confined_and_its_children_end_with_it(stories):
    client = await EngineClient.start(config(stories, chat_template="{{ 1 }}"), timeout_s=60)
    assert client.pid is not None
    worker = psutil.Process(client.pid)
    status = Path(f"/proc/{client.pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert int(Path(f"/proc/{client.pid}/oom_score_adj").read_text()) >= 500
    server, template = children = worker.children(recursive=True)
    assert "edgeagent.engine.process.fork_server" in server.cmdline()
    # A forked process has the command line of its parent until it runs.
    await asyncio.to_thread(wait_for, lambda: "edgeagent.engine.template" in template.cmdline())
    assert template.ppid() == server.pid
    worker.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    await client.close()


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"no model at all", b"GGUF" + bytes(range(256)) * 40]
)
async def test_a_file_that_is_no_model_fails_to_load_with_a_reason(tmp_path, content):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelUnusable):
        await EngineClient.start(config(path), timeout_s=60)


async def test_a_model_cut_in_half_fails_to_load_with_a_reason(stories, tmp_path):
    path = tmp_path / "half.gguf"
    data = stories.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelUnusable):
        await EngineClient.start(config(path), timeout_s=60)


async def test_the_state_of_an_answer_goes_on_in_another_worker(engine, stories: Path):
    text = "Once upon a time there was a little girl who loved to play in the garden. One day"
    first = engine.generate(spec(text))
    said, _ = await collect(first)
    request_id = first.origin[1]
    held = await engine.ask(CachedTokensSpec(request_id))
    n_tokens = len(held.tokens) // 4
    spans = [(at, min(at + 16, n_tokens)) for at in range(0, n_tokens, 16)]
    pieces = [(await engine.ask(ReadCellsSpec(request_id, *span))).data for span in spans]
    longer = spec(text + said, scope="x")
    expected, _ = await collect(engine.generate(longer))
    other = await EngineClient.start(config(stories), timeout_s=60)
    assert other.facts.state_kind == engine.facts.state_kind is not None
    for (start, end), data in zip(spans, pieces, strict=True):
        assert abs(len(data) / (end - start) / held.n - 1) < 0.5
        piece = LoadCellsSpec(scope="x", tokens=held.tokens[: 4 * end], first=start, data=data)
        assert (await other.ask(piece)).n == end
    assert (await other.ask(CachedLengthSpec("x", held.tokens))).n == n_tokens
    found, last = await collect(other.generate(longer))
    assert found == expected and last.usage.n_cached >= n_tokens - 1
    bad = LoadCellsSpec(scope="y", tokens=held.tokens[:64], first=0, data=os.urandom(4096))
    assert (await other.ask(bad)).n == 0, "llama.cpp refuses what is no state"
    again, _ = await collect(other.generate(spec(text)))
    assert again == said
    await other.close()
