"""What one key has made does not exist for another: every route that takes an id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
from litestar.routes import HTTPRoute

from edgeagent.daemon.app import Daemon
from edgeagent.device.configuration import configure
from edgeagent.serving.bots.bot_file import BotFile, Handover
from edgeagent.serving.bots.published import PublishedBot, PublishedBots
from tests.commands import run_here
from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for

pytestmark = pytest.mark.filterwarnings(
    "ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning"
)

# Paths whose parts name no row of an owner: models are everyone's, keys the administrator's, blobs are
# never taken, the last is the OpenAPI page's.
SHARED = {
    "/v1/models/{model_id:path}", "/v1/models/{path:path}", "/admin/keys/{key_id:str}",
    "/admin/keys/{key_id:str}/rotate", "/api/blobs/{digest:str}", "/{path:str}",
}  # fmt: skip
ASK = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "store": True}


class Holder:
    """One key and what it has stored."""

    def __init__(self, daemon: DaemonProcess, state: Path, name: str) -> None:
        command = ("keys", "create", "--name", name, "--json", "--scopes", "chat,data,bot")
        done = run_here(*command, "--state-dir", state)
        assert done.returncode == 0, done.stderr
        self._url = daemon.url
        made = json.loads(done.stdout)
        self.secret, self._owner, self._state = made["secret"], made["owner"], state

    def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.secret}"}
        return httpx.request(method, self._url + path, headers=headers, json=body, timeout=60)

    def store(self) -> str:
        return str(self._made("/v1/chat/completions", ASK | {"model": TALES_CHAT})["id"])

    def ids(self) -> dict[str, str]:
        """One of everything that a path can name, by the name of its place there."""
        words = [{"role": "user", "content": "Hello"}]
        conversation = self._made("/v1/conversations", {"items": words})["id"]
        items = self.call("GET", f"/v1/conversations/{conversation}/items").json()["data"]
        # In the background, so that it can be cancelled too.
        response = self._made(
            "/v1/responses", {"input": "Hello", "max_output_tokens": 2, "background": True}
        )["id"]
        return {
            "completion_id": self.store(), "response_id": response,
            "conversation_id": conversation, "item_id": items[0]["id"],
            "file_id": self._file(1), "batch_id": self._batch(), **self._knowledge(),
            "bot_id": self._bot(),
        }  # fmt: skip

    def _knowledge(self) -> dict[str, str]:
        """A vector store with a document, which came in a batch."""
        document = self._sent("assistants", "a.txt", "The ferry leaves at nine.")
        store = self._made("/v1/vector_stores", {"name": "a"})["id"]
        path = f"/v1/vector_stores/{store}/file_batches"
        batch = self._made(path, {"file_ids": [document]})["id"]
        return {"store_id": store, "document_id": document, "files_batch_id": batch}

    def _bot(self) -> str:
        name = f"b-{token_hex(12)}"
        bot = BotFile(name=name, handover=Handover(phrases=["a person"]))
        PublishedBots(self._state).write(name, PublishedBot(owner=self._owner, stores=[], bot=bot))
        return name

    def _file(self, n_lines: int) -> str:
        ask = ASK | {"model": TALES_CHAT, "max_tokens": 2000, "ignore_eos": True, "store": False}
        line = {"method": "POST", "url": "/v1/chat/completions", "body": ask}
        lines = [json.dumps(line | {"custom_id": str(n)}) for n in range(n_lines)]
        return self._sent("batch", "a.jsonl", "\n".join(lines))

    def _sent(self, purpose: str, name: str, text: str) -> str:
        sent = httpx.post(
            f"{self._url}/v1/files", data={"purpose": purpose}, timeout=60,
            files={"file": (name, text)},
            headers={"Authorization": f"Bearer {self.secret}"},
        )  # fmt: skip
        assert sent.status_code == 200, sent.text
        return str(sent.json()["id"])

    def _batch(self) -> str:
        """One that still runs when it is cancelled."""
        body = {"input_file_id": self._file(200), "endpoint": "/v1/chat/completions"}
        return str(self._made("/v1/batches", body)["id"])

    def _made(self, path: str, body: object) -> dict:
        answer = self.call("POST", path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def holders(
    tales_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Holder, Holder]]:
    state = tmp_path_factory.mktemp("owners") / "state"
    with serving(tales_dir, state, search=True, request_flush_s=0) as daemon:
        yield Holder(daemon, state, "a"), Holder(daemon, state, "b")


# By path and method: the body that an owner would send.
CALLS: dict[tuple[str, str], object] = {
    # First: the batch computes until it is cancelled.
    ("GET", "/v1/batches/{batch_id:str}"): None,
    ("GET", "/v1/bots/{bot_id:str}"): None,
    ("POST", "/v1/bots/{bot_id:str}/messages"): {"text": "I want a person."},
    ("POST", "/v1/batches/{batch_id:str}/cancel"): None,
    ("GET", "/v1/chat/completions/{completion_id:str}"): None,
    ("GET", "/v1/chat/completions/{completion_id:str}/messages"): None,
    ("POST", "/v1/chat/completions/{completion_id:str}"): {"metadata": {"k": "v"}},
    ("DELETE", "/v1/chat/completions/{completion_id:str}"): None,
    ("GET", "/v1/responses/{response_id:str}"): None,
    ("GET", "/v1/responses/{response_id:str}/input_items"): None,
    ("POST", "/v1/responses/{response_id:str}/cancel"): None,
    ("DELETE", "/v1/responses/{response_id:str}"): None,
    ("GET", "/v1/conversations/{conversation_id:str}"): None,
    ("POST", "/v1/conversations/{conversation_id:str}"): {"metadata": {"k": "v"}},
    ("GET", "/v1/conversations/{conversation_id:str}/items"): None,
    ("POST", "/v1/conversations/{conversation_id:str}/items"): {
        "items": [{"role": "user", "content": "x"}]
    },
    ("GET", "/v1/conversations/{conversation_id:str}/items/{item_id:str}"): None,
    ("DELETE", "/v1/conversations/{conversation_id:str}/items/{item_id:str}"): None,
    ("DELETE", "/v1/conversations/{conversation_id:str}"): None,
    ("GET", "/v1/files/{file_id:str}"): None,
    ("GET", "/v1/files/{file_id:str}/content"): None,
    ("DELETE", "/v1/files/{file_id:str}"): None,
    ("GET", "/v1/vector_stores/{store_id:str}"): None,
    ("POST", "/v1/vector_stores/{store_id:str}"): {"name": "x"},
    ("POST", "/v1/vector_stores/{store_id:str}/search"): {"query": "ferry"},
    ("GET", "/v1/vector_stores/{store_id:str}/file_batches/{files_batch_id:str}"): None,
    ("GET", "/v1/vector_stores/{store_id:str}/file_batches/{files_batch_id:str}/files"): None,
    ("POST", "/v1/vector_stores/{store_id:str}/file_batches/{files_batch_id:str}/cancel"): None,
    ("GET", "/v1/vector_stores/{store_id:str}/files"): None,
    ("POST", "/v1/vector_stores/{store_id:str}/files"): {"file_id": "{document_id:str}"},
    ("POST", "/v1/vector_stores/{store_id:str}/file_batches"): {"file_ids": ["{document_id:str}"]},
    ("GET", "/v1/vector_stores/{store_id:str}/files/{document_id:str}"): None,
    ("POST", "/v1/vector_stores/{store_id:str}/files/{document_id:str}"): {"attributes": {}},
    ("GET", "/v1/vector_stores/{store_id:str}/files/{document_id:str}/content"): None,
    ("DELETE", "/v1/vector_stores/{store_id:str}/files/{document_id:str}"): None,
    ("DELETE", "/v1/vector_stores/{store_id:str}"): None,
}
# Tried in api/openai/test_transcripts.py and test_audio_jobs.py, where there is a speech model.
ELSEWHERE = {
    ("GET", "/v1/audio/jobs/{job_id:str}"),
    ("GET", "/v1/audio/jobs/{job_id:str}/recording"),
    ("PATCH", "/v1/audio/jobs/{job_id:str}/recording"),
    ("POST", "/v1/audio/jobs/{job_id:str}/start"),
    ("POST", "/v1/audio/jobs/{job_id:str}/cancel"),
    ("GET", "/v1/audio/jobs/{job_id:str}/events"),
    ("GET", "/v1/audio/jobs/{job_id:str}/result"),
    ("DELETE", "/v1/audio/jobs/{job_id:str}"),
    ("GET", "/v1/audio/transcripts/{transcript_id:str}"),
    ("DELETE", "/v1/audio/transcripts/{transcript_id:str}"),
}
NAUGHT = 24 * "0"


def test_every_route_that_takes_an_id_is_in_this_matrix(tmp_path: Path):
    """A new route must be told whose its ids are."""
    daemon = Daemon(configure(flags={"state_dir": tmp_path, "models_dir": tmp_path}))
    found = set()
    for route in daemon.api.routes:
        if isinstance(route, HTTPRoute) and "{" in route.path_format:
            for handler in route.route_handlers:
                found |= {(str(m), path) for m in handler.http_methods for path in handler.paths}
    daemon.database.close()
    found = {(method, path) for method, path in found if method != "OPTIONS" and path not in SHARED}
    assert found == set(CALLS) | ELSEWHERE


@pytest.fixture(scope="module")
def mine(holders: tuple[Holder, Holder]) -> dict[str, str]:
    return holders[0].ids()


def filled(path: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        path = path.replace(f"{{{name}:str}}", value)
    return path


def in_body(body: object, ids: dict[str, str]) -> object:
    return json.loads(filled(json.dumps(body), ids))


@pytest.mark.parametrize(("method", "path"), list(CALLS))
def test_what_is_another_s_is_a_404(
    holders: tuple[Holder, Holder], mine: dict[str, str], method: str, path: str
):
    owner, other = holders
    # Deleting comes after reading, in the order of the matrix: each id is there until then.
    missing = {name: value.rpartition(value[-24:])[0] + NAUGHT for name, value in mine.items()}
    body = CALLS[method, path]
    answers = [other.call(method, filled(path, ids), in_body(body, ids)) for ids in (mine, missing)]
    assert [answer.status_code for answer in answers] == [404, 404]
    told = [answer.json()["error"]["message"] for answer in answers]
    for name, value in mine.items():
        told = [text.replace(value, "").replace(missing[name], "") for text in told]
    assert told[0] == told[1], "no oracle"
    done = owner.call(method, filled(path, mine), in_body(body, mine))
    assert done.status_code == 200, "nothing happened to it"


def test_another_s_ids_in_a_body_are_not_there_either(holders: tuple[Holder, Holder]):
    owner, other = holders
    ids = owner.ids()
    assert owner.call("POST", f"/v1/batches/{ids['batch_id']}/cancel").status_code == 200
    missing = {name: value.rpartition(value[-24:])[0] + NAUGHT for name, value in ids.items()}
    for body, status in (
        ({"previous_response_id": "response_id"}, 400),
        ({"conversation": "conversation_id"}, 404),
        ({"input": [{"type": "item_reference", "id": "item_id"}]}, 404),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["store_id"]}]}, 404),
    ):
        told = []
        for known in (ids, missing):
            text = json.dumps({"input": "x"} | body)
            for name, value in known.items():
                text = text.replace(f'"{name}"', f'"{value}"')
            answer = other.call("POST", "/v1/responses", json.loads(text))
            assert answer.status_code == status, answer.text
            message = answer.json()["error"]["message"]
            for value in known.values():
                message = message.replace(value, "")
            told.append(message)
        assert told[0] == told[1], "no oracle"


def test_lists_usage_search_and_feedback_are_each_owner_s_own(holders: tuple[Holder, Holder]):
    owner, other = holders
    mine = owner.store()
    theirs = other.store()
    for holder, own, foreign in ((owner, mine, theirs), (other, theirs, mine)):
        listed = holder.call("GET", "/v1/chat/completions?limit=100").json()["data"]
        ids = {row["id"] for row in listed}
        assert own in ids and foreign not in ids
        found = holder.call("GET", "/v1/search?q=hello&limit=100").json()["data"]
        assert own in {row["response_id"] for row in found}
        assert foreign not in {row["response_id"] for row in found}
        rate = {"target_id": foreign, "rating": 1}
        assert holder.call("POST", "/v1/feedback", rate).status_code == 404
        assert holder.call("POST", "/v1/feedback", rate | {"target_id": own}).status_code == 201
        page = holder.call("GET", f"/v1/chat/completions?after={foreign}").json()["data"]
        assert page == [], "a cursor of another's shows nothing"
    used = other.call("GET", "/v1/usage").json()["data"]
    assert sum(day["n_requests"] for day in used) < 10, "the other's requests are not counted"


def is_indexed(holder: Holder, path: str) -> bool:
    return bool(holder.call("GET", path).json()["status"] == "completed")


def test_documents_of_two_keys_with_the_same_words_stay_apart(holders: tuple[Holder, Holder]):
    stores = [holder._knowledge() for holder in holders]
    pairs = ((holders[0], stores[0], stores[1]), (holders[1], stores[1], stores[0]))
    for holder, own, foreign in pairs:
        path = f"/v1/vector_stores/{own['store_id']}"
        wait_for(partial(is_indexed, holder, path))
        for method in ("words", "hybrid"):
            body = {"query": "When does the ferry leave?", "search_method": method}
            found = holder.call("POST", f"{path}/search", body).json()["data"]
            assert {row["file_id"] for row in found} == {own["document_id"]}
        files = {row["id"] for row in holder.call("GET", "/v1/files?limit=100").json()["data"]}
        assert own["document_id"] in files and foreign["document_id"] not in files
        listed = holder.call("GET", "/v1/vector_stores?limit=100").json()["data"]
        ids = {row["id"] for row in listed}
        assert own["store_id"] in ids and foreign["store_id"] not in ids
