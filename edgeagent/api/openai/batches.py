"""`/v1/batches`: many requests at once, done when nobody else waits."""

from __future__ import annotations

import json
from typing import Any

from litestar import get, post

from edgeagent.api.http.auth import check_need
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.path_scopes import need_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.batches import BatchBody, BatchRequest, RequestCounts
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.api.openai.schemas.stored_chats import StoredList
from edgeagent.api.openai.stored_chats import After, Limit, as_list
from edgeagent.serving.batches import Batches
from edgeagent.types.list_pages import PAGE, Page

_TAGS = ["batches"]
_TIMES = (
    "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
)  # fmt: skip
_ENDED = ("completed", "failed", "expired", "cancelled")


def shown(row: dict[str, Any]) -> BatchBody:
    """A batch as the API shows it: files of answers once it has ended, if there is anything in them."""
    has_ended = row["status"] in _ENDED

    def answers(kind: str) -> str | None:
        return row[f"{kind}_file_id"] if has_ended and row[f"{kind}_bytes"] else None

    times = {f"{name}_at": _seconds(row[f"{name}_ms"]) for name in _TIMES}
    return BatchBody(
        id=row["id"],
        endpoint=row["endpoint"],
        errors=json.loads(row["errors"]) if row["errors"] else None,
        input_file_id=row["input_file_id"],
        completion_window=row["window"],
        status=row["status"],
        output_file_id=answers("output"),
        error_file_id=answers("error"),
        created_at=row["created_ms"] // 1000,
        expires_at=row["expires_ms"] // 1000,
        request_counts=RequestCounts(
            total=row["n_total"], completed=row["n_completed"], failed=row["n_failed"]
        ),
        metadata=json.loads(row["metadata"]) or None,
        **times,
    )


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000


@post(
    "/v1/batches",
    operation_class=body_operation(BatchRequest),
    operation_id="create_batch",
    summary="Have the requests of a file done",
    description=(
        "They are done behind everything that somebody waits for, also after a restart. The answers are in "
        "`output_file_id` and `error_file_id` once the batch has ended."
    ),
    tags=_TAGS,
    status_code=200,
    responses={
        200: response_doc(BatchBody, description="The batch"),
        400: response_doc(ErrorBody, description="The request is not valid"),
        404: response_doc(ErrorBody, description="Unknown file"),
        429: response_doc(ErrorBody, description="The owner has too many open batches"),
    },
)
async def create_batch(request: ApiRequest, batches: Batches) -> BatchBody:
    body = await read_body(request, BatchRequest)
    caller = caller_of(request)
    need = need_of("POST", body.endpoint)
    if need is not None:  # an unknown endpoint is refused by its name
        check_need(need, caller, body.endpoint)
    made = await batches.create(
        caller, body.input_file_id, body.endpoint, body.completion_window, body.metadata or {}
    )
    return shown(made)


@get("/v1/batches", operation_id="list_batches", summary="List batches", tags=_TAGS)
async def list_batches(
    request: ApiRequest, batches: Batches, after: After = None, limit: Limit = PAGE
) -> StoredList:
    found = await batches.listed(caller_of(request).owner, Page(after, limit))
    return as_list([shown(row).model_dump() for row in found.rows], found.has_more)


@get("/v1/batches/{batch_id:str}", operation_id="get_batch", summary="Show a batch", tags=_TAGS)
async def get_batch(request: ApiRequest, batches: Batches, batch_id: str) -> BatchBody:
    return shown(await batches.get(caller_of(request).owner, batch_id))


@post(
    "/v1/batches/{batch_id:str}/cancel",
    operation_id="cancel_batch",
    summary="End a batch",
    description="Requests that are being done are given up; answers so far stay.",
    tags=_TAGS,
    status_code=200,
)
async def cancel_batch(request: ApiRequest, batches: Batches, batch_id: str) -> BatchBody:
    return shown(await batches.cancel(caller_of(request), batch_id))


HANDLERS = (create_batch, list_batches, get_batch, cancel_batch)
