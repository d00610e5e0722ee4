"""Files on disk, and the knowledge bases of the running daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import httpx

from edgeagent.cli.shared.daemon import authorization, base_url, refusal_of
from edgeagent.errors import EdgeAgentError, StartFailed
from edgeagent.settings import Settings

ATTACHED_AT_ONCE = 500
POLL_S = 0.3
PATH_CHARS = 512  # of an attribute


@dataclass(frozen=True)
class LocalFile:
    """A file on disk. `name` is its path below the directory that was named."""

    path: Path
    name: str

    @cached_property
    def digest(self) -> str:
        return sha256(self.path.read_bytes()).hexdigest()


def local_files(path: Path) -> list[LocalFile]:
    """A file, or the files of a directory, without hidden ones and links. Raises: OSError."""
    if not path.is_dir():
        return [LocalFile(path, path.name)]
    found = []
    for one in sorted(path.rglob("*")):
        inside = one.relative_to(path)
        is_hidden = any(part.startswith(".") for part in inside.parts)
        if one.is_file() and not one.is_symlink() and not is_hidden:
            found.append(LocalFile(one, str(inside)[-PATH_CHARS:]))
    return found


class KnowledgeClient:
    """A connection to the daemon. Methods raise EdgeAgentError with the daemon's message, and StartFailed
    where no daemon runs."""

    def __init__(self, settings: Settings) -> None:
        self._url = base_url(settings)
        self._http = httpx.Client(
            base_url=self._url, timeout=300, trust_env=False, headers=authorization()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    def stores(self) -> list[dict[str, Any]]:
        return self._listed("/v1/vector_stores")

    def store_named(self, name: str) -> dict[str, Any] | None:
        """The newest store of this name or id."""
        return next((row for row in self.stores() if name in (row["name"], row["id"])), None)

    def required(self, name: str) -> dict[str, Any]:
        found = self.store_named(name)
        if found is None:
            raise EdgeAgentError(
                f"There is no knowledge base {name!r}: `edgeagent knowledge list` shows them."
            )
        return found

    def create(self, name: str) -> dict[str, Any]:
        return self.asked("POST", "/v1/vector_stores", json={"name": name})

    def delete_store(self, store_id: str) -> None:
        self.asked("DELETE", f"/v1/vector_stores/{store_id}")

    def files(self, store: dict[str, Any]) -> list[dict[str, Any]]:
        return self._listed(f"/v1/vector_stores/{store['id']}/files")

    def upload(self, file: LocalFile) -> str:
        """The id of the document."""
        with file.path.open("rb") as data:
            made = self.asked(
                "POST", "/v1/files", data={"purpose": "assistants"},
                files={"file": (file.path.name, data)},
            )  # fmt: skip
        return str(made["id"])

    def delete_document(self, document_id: str) -> None:
        self.asked("DELETE", f"/v1/files/{document_id}")

    def attach(
        self, store_id: str, sent: Sequence[tuple[str, LocalFile]], bot: str | None = None
    ) -> None:
        """Put uploaded documents into a store, as those of a `bot` where it is named."""
        own = {} if bot is None else {"bot": bot}
        for start in range(0, len(sent), ATTACHED_AT_ONCE):
            files = [
                {"file_id": one, "attributes": {"path": file.name, "sha256": file.digest} | own}
                for one, file in sent[start : start + ATTACHED_AT_ONCE]
            ]
            self.asked("POST", f"/v1/vector_stores/{store_id}/file_batches", json={"files": files})

    def wait_until_indexed(self, store_id: str, tell: Callable[[int, int], object]) -> None:
        """`tell` gets how many more files are done, and how many there are."""
        n_told = 0
        while True:
            counts = self.asked("GET", f"/v1/vector_stores/{store_id}")["file_counts"]
            n_done = counts["total"] - counts["in_progress"]
            tell(n_done - n_told, counts["total"])
            n_told = n_done
            if not counts["in_progress"]:
                return
            time.sleep(POLL_S)

    def search(self, store_id: str, query: str, n_results: int) -> list[dict[str, Any]]:
        found = self.asked(
            "POST", f"/v1/vector_stores/{store_id}/search",
            json={"query": query, "max_num_results": n_results},
        )  # fmt: skip
        return list(found["data"])

    def _listed(self, path: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        params: dict[str, Any] = {"limit": 100}
        while True:
            page = self.asked("GET", path, params=params)
            rows += page["data"]
            if not page["has_more"]:
                return rows
            params["after"] = page["last_id"]

    def asked(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        """The body of the daemon's answer."""
        try:
            reply = self._http.request(method, path, **given)
        except httpx.TransportError as exc:
            raise StartFailed(
                f"No daemon answers at {self._url}: start one with `edgeagent serve`, or give its --port."
            ) from exc
        if reply.status_code != 200:
            raise refusal_of(reply.status_code, reply.content)
        return dict(reply.json())
