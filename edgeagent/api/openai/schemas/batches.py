"""Bodies of `/v1/files` and `/v1/batches`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import IgnoredField, RequestModel
from edgeagent.api.openai.schemas.stored_chats import Metadata


class FileForm(RequestModel):
    """The fields of an upload, beside the file."""

    purpose: Literal["batch", "assistants", "user_data"] = Field(
        description="`batch`: requests; `assistants` and `user_data`: a document for vector stores"
    )
    expires_after: Annotated[
        dict[str, Any] | None,
        IgnoredField("store.retention says how long files are kept"),
    ] = None


class BatchRequest(RequestModel):
    """A new batch."""

    input_file_id: str = Field(min_length=1, max_length=100)
    endpoint: str = Field(min_length=1, max_length=100)
    completion_window: str = Field(
        "24h", max_length=20, description="hours until what is not done expires: 1h to 168h"
    )
    metadata: Metadata | None = None
    output_expires_after: Annotated[
        dict[str, Any] | None,
        IgnoredField("store.retention.batches_days says how long files are kept"),
    ] = None


class FileBody(BodyModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class RequestCounts(BodyModel):
    total: int
    completed: int
    failed: int


class BatchBody(BodyModel):
    """A batch. Times in seconds since 1970."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: dict[str, Any] | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
