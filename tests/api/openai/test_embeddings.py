"""`POST /v1/embeddings` through the official client, on the real all-MiniLM-L6-v2."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.api.wire import connect, error_of, post
from tests.conftest import MINILM, SMOLLM, DaemonProcess, serving, wait_for

# Sentences of our own; the first two of each row say nearly the same, the third something else.
RELATED = [
    ("Where is my parcel?", "The package has not arrived yet.", "The cake needs four eggs."),
    (
        "The patient has a high fever.",
        "Her temperature rose to forty degrees.",
        "We sold the boat.",
    ),
    ("How do I reset my password?", "I cannot log in any more.", "The river froze in January."),
    (
        "Turn off the kitchen light.",
        "Make it dark in the room where we cook.",
        "Shares fell today.",
    ),
    ("The train to Basel is late.", "Our railway connection was delayed.", "He plays the violin."),
    ("The battery is almost empty.", "It needs to be charged soon.", "Roses like clay soil."),
    ("She adopted a puppy.", "They have a young dog now.", "The invoice is due on Friday."),
    ("It rained all weekend.", "The weather was wet on Saturday and Sunday.", "He wrote a novel."),
]


@pytest.fixture(scope="module")
def daemon(
    smollm_dir: Path, minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    with serving(minilm_dir, tmp_path_factory.mktemp("embeddings"), preload=False) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def strict(daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with daemon.client() as client:
        yield client


def embed(client: openai.OpenAI, texts: Any, **options: Any) -> np.ndarray[Any, Any]:
    options = {"model": MINILM, "encoding_format": "float"} | options
    answer = client.embeddings.create(input=texts, **options)
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data])


def test_an_answer_is_what_the_official_client_expects(strict: openai.OpenAI):
    answer = strict.embeddings.create(
        model=MINILM, input=["hello world", "rain"], encoding_format="float", user="me"
    )
    assert (answer.object, answer.model) == ("list", MINILM)
    assert [len(item.embedding) for item in answer.data] == [384, 384]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 7  # 2 + 1 words, 2 marks each
    for item in answer.data:
        assert np.linalg.norm(item.embedding) == pytest.approx(1, abs=1e-5)


def test_base64_is_the_same_numbers_as_little_endian_float32(
    daemon: DaemonProcess, strict: openai.OpenAI
):
    floats = embed(strict, ["hello world", "rain"])
    # The client asks for base64 unless told otherwise, and in strict mode refuses what it asked for.
    with daemon.client(_strict_response_validation=False) as lenient:
        by_default = lenient.embeddings.create(model=MINILM, input=["hello world", "rain"])
    np.testing.assert_array_equal(np.array([item.embedding for item in by_default.data]), floats)
    body = {"model": MINILM, "input": "rain", "encoding_format": "base64"}
    raw = httpx.post(f"{daemon.url}/v1/embeddings", json=body).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(raw), "<f4"), floats[1], atol=1e-5)


def test_sentences_that_mean_the_same_are_nearer_than_others(strict: openai.OpenAI):
    vectors = embed(strict, [text for row in RELATED for text in row]).reshape(len(RELATED), 3, -1)
    alike = np.einsum("ij,ij->i", vectors[:, 0], vectors[:, 1])
    unlike = np.einsum("ij,ij->i", vectors[:, 0], vectors[:, 2])
    assert (alike > unlike + 0.1).all(), (alike, unlike)
    # Also against every other row's sentence.
    scores = vectors[:, 0] @ vectors[:, 1].T
    assert (scores.argmax(1) == np.arange(len(RELATED))).all(), scores


@pytest.mark.parametrize("tokens", [[101, 4542, 102], [[101, 4542, 102]]])
def test_token_ids_are_taken_as_they_are(strict: openai.OpenAI, tokens):
    np.testing.assert_allclose(embed(strict, tokens), embed(strict, "rain"), atol=1e-5)


def test_the_first_numbers_are_a_vector_of_length_one_again(strict: openai.OpenAI):
    whole, cut = embed(strict, "rain")[0], embed(strict, "rain", dimensions=128)[0]
    np.testing.assert_allclose(cut, whole[:128] / np.linalg.norm(whole[:128]), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "param", "message"),
    [
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": ["rain", ""]}, "input", "`input` 1 is empty"),
        ({"input": [[5], []]}, "input", "`input` 1 is empty"),
        ({"input": ["rain", 5]}, "input", "int, str"),
        ({"input": {"text": "rain"}}, "input", "dict"),
        ({"input": None}, "input", "NoneType"),
        ({"input": [True]}, "input", "bool"),
        ({"input": [1.5]}, "input", "float"),
        ({"input": [30522]}, "input", "30522.* 0 to 30521"),
        ({"input": [[5, -1]]}, "input", "nor a token id"),
        ({"input": [[5, 1 << 62]]}, "input", "nor a token id"),
        ({"input": [[5, "rain"]]}, "input", "nor a token id"),
        ({"input": [[[5]]]}, "input", "nor a token id"),
        ({"input": ["a"] * 2049}, "input", "2049.*2048"),
        ({"dimensions": 385}, "dimensions", "385.*384"),
        ({"dimensions": 0}, "dimensions", "greater"),
        ({"encoding_format": "hex"}, "encoding_format", "base64"),
        ({"inputs": "rain"}, "inputs", "did you mean `input`"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_the_field(daemon: DaemonProcess, field, param, message):
    body = {"model": MINILM, "input": "rain"} | field
    reply = httpx.post(f"{daemon.url}/v1/embeddings", json=body)
    assert reply.status_code == 400
    error = error_of(reply.json())
    assert error["param"] == param, error
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error["message"])


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(strict: openai.OpenAI):
    with pytest.raises(openai.BadRequestError, match=r"602 tokens.*512") as caught:
        embed(strict, "rain " * 600)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    assert embed(strict, "rain " * 600, extra_body={"truncate": True}).shape == (1, 384)


def test_who_asks_the_wrong_kind_of_model_hears_which_can(daemon: DaemonProcess):
    with daemon.client() as client:
        with pytest.raises(openai.BadRequestError, match=MINILM) as caught:
            client.embeddings.create(model=SMOLLM, input="rain")
        assert caught.value.param == "model"
        with pytest.raises(openai.BadRequestError, match=SMOLLM):
            client.chat.completions.create(
                model=MINILM, messages=[{"role": "user", "content": "Hi"}]
            )
        with pytest.raises(openai.BadRequestError, match=SMOLLM):
            client.completions.create(model=MINILM, prompt="Hi")
        with pytest.raises(openai.NotFoundError, match="minilm"):
            client.embeddings.create(model="all-minilm-l6", input="rain")


def test_without_a_name_the_model_that_embeds_answers_and_the_chat_model_chats(
    daemon: DaemonProcess,
):
    for model in ({}, {"model": "default"}):
        reply = httpx.post(f"{daemon.url}/v1/embeddings", json={"input": "rain"} | model)
        assert reply.json()["model"] == MINILM
    tasks = {m["id"]: m["task"] for m in httpx.get(f"{daemon.url}/v1/models").json()["data"]}
    assert tasks[MINILM] == "embed" and tasks[SMOLLM] == "generate"
    found = httpx.get(f"{daemon.url}/v1/models/{MINILM}").json()
    assert not found["is_default"] and found["n_ctx"] == 512


def test_many_clients_at_once_each_get_their_own(strict: openai.OpenAI):
    texts = [text for row in RELATED for text in row]
    expected = embed(strict, texts)

    def ask(i: int) -> bool:
        return bool(np.allclose(embed(strict, texts[i : i + 3]), expected[i : i + 3], atol=1e-3))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, list(range(20)) * 2))


def test_a_request_is_noted_with_its_tokens(daemon: DaemonProcess, strict: openai.OpenAI):
    embed(strict, "a text of seven words or so")
    wait_for(lambda: "status=200 finish=None n_prompt=9 " in daemon.log.read_text())


def test_who_leaves_ends_the_work(daemon: DaemonProcess, strict: openai.OpenAI):
    embed(strict, "rain")
    n_before = daemon.log.read_text().count("status=499")
    with connect(daemon.url) as sock:
        endless = {"model": MINILM, "input": [[1000] * 250] * 2000}
        sock.sendall(post("/v1/embeddings", endless))
        embed(strict, "rain")  # answered beside it
    wait_for(lambda: daemon.log.read_text().count("status=499") == n_before + 1)


def test_a_killed_worker_costs_no_later_request(daemon: DaemonProcess, strict: openai.OpenAI):
    before = embed(strict, "rain")
    for worker in daemon.workers():
        worker.kill()
    np.testing.assert_allclose(embed(strict, "rain"), before, atol=1e-5)


@pytest.mark.parametrize("model", [MINILM, SMOLLM])
def test_texts_become_tokens_and_tokens_texts(daemon: DaemonProcess, model: str):
    with httpx.Client(base_url=daemon.url, timeout=60) as http:
        body = {"model": model, "content": "hello, wide world"}
        found = http.post("/tokenize", json=body).json()
        assert found["count"] == len(found["tokens"]) and found["model"] == model
        back = http.post("/detokenize", json={"model": model, "tokens": found["tokens"]}).json()
        assert back["content"].strip() == "hello, wide world"
        assert back["prompt"] == back["content"]
        told = {"model": model, "prompt": "hello, wide world"}
        plain = http.post("/tokenize", json=told | {"add_special_tokens": False}).json()
        assert plain == found and found["max_model_len"] > 0
        marked = http.post("/tokenize", json=body | {"add_special": True}).json()
        assert http.post("/tokenize", json=told).json() == marked
        for wrong in ({}, told | {"content": "too"}, told | {"return_token_strs": True}):
            assert http.post("/tokenize", json={"model": model} | wrong).status_code == 400
        bad = http.post("/detokenize", json={"model": model, "tokens": [1 << 30]})
        assert bad.status_code == 400 and error_of(bad.json())["param"] == "tokens"


def test_an_encoder_dropped_into_the_directory_is_known_by_its_header(minilm: Path, tmp_path: Path):
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(minilm, models / "my-own.gguf")
    with serving(models, tmp_path / "state", preload=False) as daemon, daemon.client() as client:
        assert embed(client, "rain", model="my-own").shape == (1, 384)
        listed = httpx.get(f"{daemon.url}/v1/models").json()["data"]
        (found,) = [model for model in listed if not model["id"].startswith("auto")]
        assert (found["task"], found["is_default"], found["state"]) == ("embed", False, "loaded")
        with pytest.raises(openai.BadRequestError, match="one that generates text"):
            client.completions.create(model="my-own", prompt="Hi")


def test_where_nothing_embeds_the_way_to_get_it_is_named(stories_dir: Path, tmp_path: Path):
    with serving(stories_dir, tmp_path / "state", preload=False) as daemon:
        reply = httpx.post(f"{daemon.url}/v1/embeddings", json={"input": "rain"})
        assert reply.status_code == 404
        assert "models install all-minilm-l6-v2" in error_of(reply.json())["message"]
        named = {"input": "rain", "model": "stories260k"}
        reply = httpx.post(f"{daemon.url}/v1/embeddings", json=named)
        assert reply.status_code == 400
        assert "generates text" in error_of(reply.json())["message"]
