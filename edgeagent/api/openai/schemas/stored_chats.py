"""Bodies and answers of the paths for stored data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from edgeagent.api.http.body_base import BodyModel

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


def _named(metadata: dict[str, str]) -> dict[str, str]:
    """Refuse a subject that names nobody: what is kept of it could never be asked for or erased."""
    if not metadata.get("subject", "nobody").strip():
        raise ValueError("`subject` is empty: name a person, or leave it out")
    return metadata


# OpenAI's limits. `subject` names the person that content is about, for export and erasure.
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16), AfterValidator(_named)]


class MetadataRequest(BodyModel):
    """New metadata for a stored object."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metadata: Metadata | None


class FeedbackRequest(BodyModel):
    """A rating of a request, a stored answer, an item or a transcript."""

    model_config = ConfigDict(extra="forbid", strict=True)

    target_id: str = Field(min_length=1, max_length=100)
    rating: Literal[-1, 0, 1]
    comment: str | None = Field(None, max_length=10_000)
    label: Literal["right", "partly", "wrong"] | None = Field(
        None, description="How good the answer was, where that is known"
    )
    correction: str | None = Field(
        None, max_length=100_000, description="What the answer should have been"
    )


class StoredList(BodyModel):
    """A page; `after=last_id` gives the next one while `has_more` is true."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletionBody(BodyModel):
    id: str
    object: str
    deleted: Literal[True] = True


class UsageDay(BodyModel):
    """One model on one day (UTC). Times are means in milliseconds."""

    day: str
    model: str
    n_requests: int
    n_failed: int
    n_prompt: int
    n_cached: int
    n_generated: int
    audio_s: float
    ttft_ms: float | None
    tpot_ms: float | None
    energy_j: float | None


class UsageReport(BodyModel):
    object: Literal["usage"] = "usage"
    since: int
    until: int
    data: list[UsageDay]
