"""Completions as the official client sees them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from openai.types.completion_choice import Logprobs

from tests.conftest import SHALLOW, SMOLLM, DaemonProcess, serving

PROMPT = "Once upon a time"
COUNT = "1, 2, 3, 4, 5, 6,"  # what follows is no close call, so greedy texts can be compared


@pytest.fixture(scope="module")
def client(shallow_client: openai.OpenAI) -> openai.OpenAI:
    return shallow_client


@pytest.fixture(scope="module")
def lenient(smollm_daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    """The client as most people use it. Its strict mode wants a finish_reason in every piece of a streamed
    completion, which OpenAI's own API leaves null until the last, and a log-probability of the first token
    of a scored prompt, which has none."""
    with smollm_daemon.client(_strict_response_validation=False) as client:
        yield client


def create(client: openai.OpenAI, **kwargs):
    options = {"model": SHALLOW, "prompt": PROMPT, "max_tokens": 10, "temperature": 0}
    return client.completions.create(**(options | kwargs))


def said_by_smollm(client: openai.OpenAI, **kwargs):
    """The same of a model whose answers mean something."""
    return create(client, model=SMOLLM, **kwargs)


def test_a_completion_has_id_model_one_choice_and_usage(client):
    answer = create(client)
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.model == SHALLOW
    (choice,) = answer.choices
    assert choice.index == 0 and choice.text and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 10
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 10


def test_a_completion_without_max_tokens_has_sixteen_as_openai_documents(client):
    answer = create(client, max_tokens=None, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16


def test_a_stream_has_the_text_of_the_whole_completion(smollm_client, lenient):
    whole = said_by_smollm(smollm_client, prompt=COUNT).choices[0].text
    chunks = list(said_by_smollm(lenient, prompt=COUNT, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in chunks)


def test_include_usage_adds_a_last_chunk_without_choices(lenient):
    *chunks, last = said_by_smollm(lenient, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == 10
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_several_prompts_with_several_answers_are_numbered_prompt_by_prompt(smollm_client):
    prompts = [COUNT, "The capital of France is"]
    answer = said_by_smollm(smollm_client, prompt=prompts, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert ["7, 8" in text for text in texts] == [True, True, False, False]
    assert ["Paris" in text for text in texts] == [False, False, True, True]
    counts = [
        said_by_smollm(smollm_client, prompt=prompt).usage.prompt_tokens for prompt in prompts
    ]
    assert answer.usage.prompt_tokens == sum(counts)
    assert answer.usage.completion_tokens == 40


def test_a_stream_of_several_prompts_ends_each_of_them_once(lenient):
    chunks = list(said_by_smollm(lenient, prompt=["One", "Two", "Three"], stream=True))
    ends = [c.choices[0].index for c in chunks if c.choices[0].finish_reason is not None]
    assert sorted(ends) == [0, 1, 2]


def test_a_prompt_may_be_token_ids(client):
    answer = create(client, prompt=[504, 3575, 282, 4649, 314])
    assert answer.usage.prompt_tokens == 5
    assert create(client, prompt=[[504, 3575], [504]]).usage.prompt_tokens == 3


def test_a_token_id_outside_the_vocabulary_is_a_400_with_the_bound(client):
    with pytest.raises(openai.BadRequestError, match=r"999999.*49152") as caught:
        create(client, prompt=[504, 999999])
    assert caught.value.param == "prompt"


def test_an_empty_prompt_continues_from_the_beginning_of_text(client):
    assert create(client, prompt="").usage.prompt_tokens == 1


def test_a_stop_string_across_token_borders_ends_the_completion_and_is_not_in_it(
    smollm_client, lenient
):
    choice = said_by_smollm(smollm_client, prompt=COUNT, max_tokens=40, stop=["10, 1"]).choices[0]
    assert choice.text.endswith("9, ")
    assert choice.finish_reason == "stop"
    chunks = list(said_by_smollm(lenient, prompt=COUNT, max_tokens=40, stop=["10, 1"], stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text


def test_answers_to_one_prompt_draw_with_seeds_of_their_own(client):
    answer = create(client, n=3, temperature=1.2, seed=3)
    assert len({choice.text for choice in answer.choices}) == 3


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),  # SmolLM2 was not taught it
        ({"suffix": "end", "prompt": [504]}, "suffix", "invalid_parameter"),
        ({"suffix": "end", "echo": True, "logprobs": 1}, "suffix", "unsupported_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_parameter"),
        ({"max_tokens": 0, "echo": True}, "max_tokens", "invalid_parameter"),
        ({"max_tokens": -1, "echo": True, "logprobs": 1}, "max_tokens", "invalid_parameter"),
        ({"best_of": 2, "n": 3}, "best_of", "invalid_parameter"),
        ({"best_of": 3, "stream": True}, "best_of", "invalid_parameter"),
        ({"best_of": 17}, "best_of", "invalid_parameter"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_what_cannot_be_done_is_a_400_that_names_the_parameter(client, fields, param, code):
    with pytest.raises(openai.BadRequestError, match=param) as caught:
        create(client, **fields)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_an_echo_puts_each_prompt_before_its_answers(smollm_client, lenient, smollm_daemon):
    tokens = [504, 3575, 282, 4649, 314]
    (spelled,) = [
        c.text
        for c in said_by_smollm(smollm_client, prompt=tokens, echo=True, max_tokens=1).choices
    ]
    url = f"{smollm_daemon.url}/detokenize"
    expected = httpx.post(url, json={"tokens": tokens, "model": SMOLLM}).json()["content"]
    assert spelled.startswith(expected)
    prompts = [COUNT, "Once upon a time"]
    plain = said_by_smollm(smollm_client, prompt=prompts, n=2, seed=1)
    echoed = said_by_smollm(smollm_client, prompt=prompts, n=2, seed=1, echo=True)
    assert [c.index for c in echoed.choices] == [0, 1, 2, 3]
    for i, choice in enumerate(echoed.choices):
        assert choice.text.startswith(prompts[i // 2])
    assert echoed.choices[0].text == COUNT + plain.choices[0].text
    assert echoed.usage.completion_tokens == plain.usage.completion_tokens
    texts: dict[int, str] = {}
    for chunk in said_by_smollm(lenient, prompt=prompts, n=2, seed=1, echo=True, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert texts[0] == echoed.choices[0].text
    assert all(texts[i].startswith(prompts[i // 2]) for i in range(4))


def test_an_echo_of_ids_that_no_token_has_is_a_400(client):
    with pytest.raises(openai.BadRequestError, match="999999") as caught:
        create(client, prompt=[999999], echo=True)
    assert caught.value.param == "prompt"


STORY = (
    "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is Madrid. "
    "Les élèves mangent à la cafétéria 🙂. The capital of Germany is Berlin."
)


def placed(shown: Logprobs, text: str) -> list[str]:
    """What stands in the text where each token is said to be."""
    pairs = zip(shown.text_offset, shown.tokens, strict=True)
    return [text[at : at + len(token)] for at, token in pairs]


def test_a_prompt_is_scored_as_its_tokens_were_when_they_were_drawn(lenient):
    drawn = said_by_smollm(lenient, prompt=COUNT, logprobs=2, max_tokens=12).choices[0]
    text = COUNT + drawn.text
    (scored,) = said_by_smollm(lenient, prompt=text, logprobs=2, max_tokens=0, echo=True).choices
    assert (scored.text, scored.finish_reason) == (text, "length")
    said, was = scored.logprobs, drawn.logprobs
    assert "".join(said.tokens) == text
    assert said.token_logprobs[0] is None and said.top_logprobs[0] is None
    n = len(was.tokens)
    assert said.tokens[-n:] == was.tokens
    assert said.token_logprobs[-n:] == pytest.approx(was.token_logprobs, abs=0.1)
    assert [max(top, key=top.get) for top in said.top_logprobs[-n:]] == was.tokens
    assert all(
        2 <= len(top) <= 3 for top in said.top_logprobs[1:]
    )  # its own stands there in any case
    assert placed(said, text) == said.tokens


def test_scores_of_a_prompt_come_before_those_of_its_answer_streamed_or_not(lenient):
    prompts = [STORY, "Once upon a time"]
    options = {"prompt": prompts, "echo": True, "logprobs": 1, "n": 2, "max_tokens": 5}
    said_by_smollm(lenient, prompt=STORY)  # what is in the cache already is scored all the same
    whole = said_by_smollm(lenient, **options)
    assert whole.usage.completion_tokens == 20
    streamed: dict[int, dict[str, list]] = {}
    for chunk in said_by_smollm(lenient, stream=True, **options):
        for choice in chunk.choices:
            if choice.logprobs is not None:
                mine = streamed.setdefault(choice.index, {})
                for name, values in choice.logprobs.model_dump().items():
                    mine.setdefault(name, []).extend(values)
    for choice in whole.choices:
        shown = choice.logprobs
        assert choice.text.startswith(prompts[choice.index // 2])
        assert "".join(shown.tokens) == choice.text
        assert placed(shown, choice.text) == shown.tokens
        assert shown.token_logprobs[0] is None
        assert all(value <= 1e-3 for value in shown.token_logprobs[1:])
        mine = streamed[choice.index]
        n = sum(at < len(prompts[choice.index // 2]) for at in shown.text_offset)
        for name in ("tokens", "text_offset"):
            assert mine[name][:n] == getattr(shown, name)[:n]
        # In a cache whose cells are used again, sums have another order; what is unlikely moves the most.
        pairs = zip(mine["token_logprobs"][1:n], shown.token_logprobs[1:n], strict=True)
        assert sum(abs(left - right) for left, right in pairs) / n < 0.3
        assert len(mine["tokens"]) == len(shown.tokens) == n + 5
    first = whole.choices[0].logprobs
    score = dict(zip(first.tokens, first.token_logprobs, strict=True))
    assert score[" Rome"] > -2 > score[" Les"]  # one is known, of the other nothing spoke


def test_an_empty_prompt_has_nothing_to_score(client):
    (choice,) = create(client, prompt="", echo=True, logprobs=1, max_tokens=3).choices
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[0] == 0


def test_the_mark_and_the_space_that_a_tokenizer_puts_first_are_no_part_of_what_is_scored(
    stories_dir, tmp_path
):
    options = {"_strict_response_validation": False}  # a first token without a mark has no logprob
    scored = {"model": "stories260k", "echo": True, "logprobs": 0, "max_tokens": 0}
    with (
        serving(stories_dir, tmp_path / "state", n_ctx=256) as daemon,
        daemon.client(**options) as client,
    ):
        (choice,) = client.completions.create(prompt="Once upon a time", **scored).choices
        whole = [300 + i % 50 for i in range(256)]
        (filled,) = client.completions.create(prompt=whole, **scored).choices
        for prompt, n in (([*whole, 300], 0), (whole, 1)):
            with pytest.raises(openai.BadRequestError, match=r"[Ss]horten"):
                client.completions.create(prompt=prompt, **(scored | {"max_tokens": n}))
    assert len(filled.logprobs.tokens) == 256
    assert choice.text == "Once upon a time"
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[0] == 0


def test_the_best_of_some_answers_are_those_whose_tokens_are_the_most_probable(client):
    options = {"temperature": 1.5, "seed": 4, "max_tokens": 8}
    every = create(client, n=4, logprobs=0, **options)
    best = create(client, n=2, best_of=4, logprobs=0, **options)

    def mean(choice) -> float:
        values = choice.logprobs.token_logprobs
        return sum(values) / len(values)

    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage.completion_tokens == every.usage.completion_tokens, "all of them are counted"
    first, second = map(mean, best.choices)
    assert first >= second
    assert create(client, best_of=2, **options).choices[0].logprobs is None
