"""`POST /v1/rerank` on a real worker with a small cross-encoder, in Jina's and Cohere's shapes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from tests.api.wire import error_of
from tests.catalog.cross_encoder import CrossEncoder, write_cross_encoder
from tests.conftest import DaemonProcess, serving, wait_for

QUERY = "where is my parcel"
DOCUMENTS = [
    "rain fell all day long",
    "my parcel was lost",
    "the dog ran home",
    "the train is late",
]


class Served(NamedTuple):
    daemon: DaemonProcess
    model: CrossEncoder

    def post(self, **body: Any) -> httpx.Response:
        asked = {"model": "cross", "query": QUERY, "documents": DOCUMENTS} | body
        return httpx.post(f"{self.daemon.url}/v1/rerank", json=asked, timeout=60)


@pytest.fixture(scope="module")
def served(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("rerank-models")
    model = write_cross_encoder(models / "cross.gguf")
    shutil.copy(stories, models / "stories260k.gguf")
    state = tmp_path_factory.mktemp("rerank-state")
    with serving(models, state, preload=False) as daemon:
        yield Served(daemon, model)


def test_others_paths_and_shapes_give_the_same_ranking(served: Served):
    wanted = served.post().json()["results"]
    for path in ("/rerank", "/v2/rerank"):
        body = {"model": "cross", "query": QUERY, "documents": DOCUMENTS}
        reply = httpx.post(f"{served.daemon.url}{path}", json=body, timeout=60)
        assert reply.json()["results"] == wanted, path
    plain = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, "return_text": True}
    reply = httpx.post(f"{served.daemon.url}/rerank", json=plain | {"truncate": True}, timeout=60)
    assert [(row["index"], row["score"]) for row in reply.json()] == [
        (row["index"], row["relevance_score"]) for row in wanted
    ]
    assert all(row["text"] == DOCUMENTS[row["index"]] for row in reply.json())
    for wrong in ({"texts": []}, {"texts": ["a", 5]}, {"texts": ["a"], "documents": ["a"]}, {}):
        reply = httpx.post(f"{served.daemon.url}/rerank", json={"query": QUERY} | wrong, timeout=60)
        assert reply.status_code == 400, wrong


def test_the_documents_come_by_relevance_with_their_places_in_the_request(served: Served):
    answer = served.post().json()
    expected = {i: served.model.score(QUERY, text) for i, text in enumerate(DOCUMENTS)}
    results = answer["results"]
    assert sorted(r["index"] for r in results) == sorted(expected)
    scores = [r["relevance_score"] for r in results]
    assert scores == sorted(scores, reverse=True)
    # Matrices are 8-bit integers where the processor has instructions for them.
    assert scores == pytest.approx([expected[r["index"]] for r in results], abs=0.03)
    assert all(set(result) == {"index", "relevance_score"} for result in results)
    assert answer["model"] == "cross" and answer["id"].startswith("rerank-")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] == 17 + 4 * (4 + 3)


def test_the_best_of_them_with_their_texts(served: Served):
    everything = served.post().json()["results"]
    as_objects = [{"text": text} for text in DOCUMENTS]
    answer = served.post(documents=as_objects, top_n=2, return_documents=True).json()
    assert [r["index"] for r in answer["results"]] == [r["index"] for r in everything[:2]]
    for result in answer["results"]:
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}
    assert len(served.post(top_n=99).json()["results"]) == len(DOCUMENTS)


def test_what_a_client_of_cohere_or_open_webui_sends_is_answered(served: Served):
    cohere = served.post(max_tokens_per_doc=4096, priority=0, top_n=1)
    assert cohere.status_code == 200
    headers = {"Authorization": "Bearer none", "X-OpenWebUI-User-Name": "me"}
    body = {"model": "cross", "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)}
    reply = httpx.post(f"{served.daemon.url}/v1/rerank", json=body, headers=headers)
    by_index = sorted(reply.json()["results"], key=lambda r: r["index"])
    assert len([r["relevance_score"] for r in by_index]) == len(DOCUMENTS)


def test_without_a_name_the_model_that_ranks_answers(served: Served):
    for model in (None, "default"):
        assert served.post(model=model).json()["model"] == "cross"
    models = httpx.get(f"{served.daemon.url}/v1/models").json()["data"]
    tasks = {m["id"]: m["task"] for m in models if not m["id"].startswith("auto")}
    assert tasks == {"cross": "rerank", "stories260k": "generate"}
    assert [m["id"] for m in models if m["is_default"]] == ["stories260k"]


@pytest.mark.parametrize(
    ("field", "param", "message"),
    [
        ({"documents": []}, "documents", "empty"),
        ({"documents": "rain"}, "documents", "list"),
        ({"documents": ["rain", ""]}, "documents", "`documents` 1"),
        ({"documents": ["rain", 5]}, "documents", "`documents` 1"),
        ({"documents": [{"text": "rain", "id": 4}]}, "documents", "only a `text`"),
        ({"documents": [{"image": "data:"}]}, "documents", "`documents` 0"),
        ({"documents": ["rain"] * 2049}, "documents", "2048"),
        ({"query": ""}, "query", "1 character"),
        ({"query": ["rain"]}, "query", "string"),
        ({"top_n": 0}, "top_n", "greater"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc", "greater"),
        ({"document": "rain"}, "document", "did you mean `documents`"),
        ({"documents": ["rain " * 600]}, "documents", r"at least 4\d\d tokens.*128"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_the_field(served: Served, field, param, message):
    reply = served.post(**field)
    assert reply.status_code == 400
    error = error_of(reply.json())
    assert error["param"] == param, error
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error["message"])


def test_a_document_too_long_is_cut_where_that_was_asked_for(served: Served):
    cut = served.post(documents=["rain " * 600], truncate=True).json()
    assert cut["usage"]["total_tokens"] == 128
    short = served.post(documents=["rain " * 600], max_tokens_per_doc=3).json()
    assert short["usage"]["total_tokens"] == 4 + 3 + 3


def test_who_asks_the_wrong_kind_of_model_hears_which_can(served: Served):
    reply = served.post(model="stories260k")
    assert reply.status_code == 400
    assert "choose one that does (cross)" in error_of(reply.json())["message"]
    assert served.post(model="crass").status_code == 404
    with served.daemon.client() as client:
        with pytest.raises(openai.BadRequestError, match=r"ranks documents.*stories260k"):
            client.completions.create(model="cross", prompt="Hi")
        with pytest.raises(openai.BadRequestError, match="all-minilm-l6-v2"):
            client.embeddings.create(model="cross", input="rain")


def test_a_request_is_noted_with_its_tokens_and_a_killed_worker_costs_no_later_one(served: Served):
    before = served.post().json()["results"]
    wait_for(lambda: "status=200 finish=None n_prompt=45 " in served.daemon.log.read_text())
    for worker in served.daemon.workers():
        worker.kill()
    assert served.post().json()["results"] == before


def test_where_nothing_ranks_the_way_to_get_it_is_named(stories_dir: Path, tmp_path: Path):
    with serving(stories_dir, tmp_path / "state", preload=False) as daemon:
        body = {"query": "rain", "documents": ["rain"]}
        reply = httpx.post(f"{daemon.url}/v1/rerank", json=body)
        assert reply.status_code == 404
        assert "models install jina-reranker-v1-tiny-en" in error_of(reply.json())["message"]
        reply = httpx.post(f"{daemon.url}/v1/rerank", json=body | {"model": "stories260k"})
        assert reply.status_code == 400
        assert "models install jina-reranker" in error_of(reply.json())["message"]
