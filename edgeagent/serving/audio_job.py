"""One transcription job as the API shows it, and its events for a client that follows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from edgeagent.serving.authentication import key_gone
from edgeagent.serving.response_builder import ResponseEvent
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.segments import Segment
from edgeagent.speech.transcript_formats import Format, Granularity

ENDED = ("completed", "failed", "cancelled")

# Segments told at once: they are encoded on the event loop.
MAX_SEGMENTS = 100
# A job, None where it is gone, and its segments from a position on, `MAX_SEGMENTS` at most.
Load = Callable[[int], Awaitable[tuple[dict[str, Any] | None, list[dict[str, Any]]]]]


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a job is transcribed, and the format of its result unless another is asked for.

    `audio_s_per_day`: the limit of the key that made it.
    """

    speech: SpeechOptions
    audio_s_per_day: float | None = None
    response_format: Format = "json"
    granularities: tuple[Granularity, ...] = ()


def options_of(row: dict[str, Any]) -> JobOptions:
    return msgspec.json.decode(row["options"], type=JobOptions)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `store.audio_jobs` as the API shows it."""
    options = options_of(row)
    is_done = row["status"] == "completed"
    return {
        "id": row["id"],
        "object": "audio.job",
        "created": row["created_ms"] // 1000,
        "status": row["status"],
        "name": row["name"],
        "metadata": json.loads(row["metadata"]),
        "model": row["model"],
        "task": options.speech.task,
        "language": row["language"] or options.speech.language,
        "response_format": options.response_format,
        "bytes": row["n_bytes"],
        "upload_offset": row["n_received"],  # null once the recording is deleted
        "audio_sha256": row["audio_digest"],
        "duration": row["audio_s"],
        "transcribed": row["audio_s"] if is_done else row["until_s"],
        "segments": row["n_segments"],
        "transcript_id": row["transcript_id"] if is_done else None,
        "error": json.loads(row["error"]) if row["error"] else None,
    }


def segment_of(row: dict[str, Any]) -> Segment:
    """A stored segment as it was transcribed."""
    body = row["body"] or {}
    found: Segment = msgspec.convert(
        body | {"start_s": row["start_s"], "end_s": row["end_s"], "text": row["text"] or ""},
        Segment,
    )
    if found.words and row["text"] is not None:  # with the space at its beginning
        return msgspec.structs.replace(found, text="".join(word.text for word in found.words))
    return found


class JobNews:
    """Wakes who waits for news of a job. Event loop's thread only."""

    def __init__(self) -> None:
        # As long as somebody waits: clients leave, and jobs that have ended get no more news.
        self._changed: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def next(self, job_id: str) -> asyncio.Event:
        """Set with the next news of this job. Get it before looking at what there is."""
        return self._changed.setdefault(job_id, asyncio.Event())

    @property
    def n_awaited(self) -> int:
        """The jobs whose news somebody waits for."""
        return len(self._changed)

    def tell(self, job_id: str) -> None:
        """There is news of one job."""
        if (changed := self._changed.pop(job_id, None)) is not None:
            changed.set()

    def tell_all(self) -> None:
        """There may be news of any job."""
        for job_id in list(self._changed):
            self.tell(job_id)


class JobFollower:
    """The events of one job for one client: segments in order, progress, and the end.

    What is not in the database is not told, so that a client may leave and come back after any segment.
    """

    def __init__(
        self, job_id: str, news: JobNews, load: Load, is_allowed: Callable[[], Awaitable[bool]]
    ) -> None:
        self._job_id = job_id
        self._news = news
        self._is_allowed = is_allowed
        self._load = load
        self._told: dict[str, Any] | None = None
        self._is_over = False

    async def take(self, n_seen: int) -> tuple[list[ResponseEvent], int]:
        """The events after the first `n_seen` segments, at least one, and the segments seen then; no events
        once the job has ended."""
        while not self._is_over:
            changed = self._news.next(self._job_id)
            if not await self._is_allowed():
                self._is_over = True
                gone = key_gone()
                return [_event("error", error={"code": gone.code, "message": gone.message})], n_seen
            row, segments = await self._load(n_seen)
            events, n_seen = self._events(row, segments, n_seen)
            if events:
                return events, n_seen
            await changed.wait()
        return [], n_seen

    def _events(
        self, row: dict[str, Any] | None, segments: list[dict[str, Any]], n_seen: int
    ) -> tuple[list[ResponseEvent], int]:
        if row is None:
            self._is_over = True
            error = {"code": "erased", "message": "The job was deleted: nothing of it is stored."}
            return [_event("error", error=error)], n_seen
        events = [
            _event(
                "audio.job.segment",
                index=found["position"],
                segment=msgspec.to_builtins(segment_of(found)),
            )
            for found in segments
        ]
        n_seen += len(segments)
        if len(segments) >= MAX_SEGMENTS:  # more may be there already
            return events, n_seen
        state = {name: row[name] for name in ("status", "audio_s", "until_s", "n_received")}
        if row["status"] in ENDED:
            self._is_over = True
            events.append(_event(f"audio.job.{row['status']}", job=shown(row)))
        elif events or state != self._told:
            self._told = state
            events.append(
                _event(
                    "audio.job.progress",
                    status=row["status"],
                    duration=row["audio_s"],
                    transcribed=row["until_s"],
                    upload_offset=row["n_received"],
                )
            )
        return events, n_seen


def _event(kind: str, **fields: Any) -> ResponseEvent:
    return ResponseEvent(kind, msgspec.json.encode({"type": kind} | fields))
