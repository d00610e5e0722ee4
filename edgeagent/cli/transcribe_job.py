"""A recording that is too large for one request: sent to the running daemon as a job, part by part."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from edgeagent.cli.shared.daemon import authorization, refusal_of
from edgeagent.cli.transcribe_part import Part
from edgeagent.errors import EdgeAgentError
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.segments import Segment

PART_BYTES = 1 << 20
JOBS = "/v1/audio/jobs"


async def job_parts(
    http: httpx.AsyncClient, path: Path, options: SpeechOptions, model: str | None
) -> AsyncGenerator[Part, None]:
    """What a job tells of a file. The job is deleted at the end, also where this is given up.

    Raises: EdgeAgentError with the daemon's message, OSError.
    """
    made = await _asked(http, "POST", JOBS, json=_body(path, options, model))
    job = f"{JOBS}/{made['id']}"
    try:
        await _send(http, job, path, made["bytes"])
        await _asked(http, "POST", f"{job}/start", json={})
        async with http.stream("GET", f"{job}/events", headers=authorization()) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield _part_of(json.loads(line.removeprefix("data: ")))
    finally:
        await http.delete(job, headers=authorization())


def _body(path: Path, options: SpeechOptions, model: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "bytes": path.stat().st_size, "prompt": options.prompt, "keywords": list(options.keywords),
        "speakers": options.speakers, "known_speaker_names": list(options.speaker_names),
    }  # fmt: skip
    given = {"language": options.language, "model": model}
    return body | {name: value for name, value in given.items() if value is not None}


async def _send(http: httpx.AsyncClient, job: str, path: Path, n_bytes: int) -> None:
    at = 0
    with path.open("rb") as file:
        while at < n_bytes:
            file.seek(at)
            headers = authorization() | {
                "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(at),
            }  # fmt: skip
            sent = await http.patch(
                f"{job}/recording", content=file.read(PART_BYTES), headers=headers
            )
            if sent.status_code != 204:
                raise refusal_of(sent.status_code, sent.content)
            if int(sent.headers["upload-offset"]) == at:
                raise EdgeAgentError("the file became shorter while it was read")
            at = int(sent.headers["upload-offset"])


async def _asked(http: httpx.AsyncClient, method: str, path: str, **given: Any) -> dict[str, Any]:
    response = await http.request(method, path, headers=authorization(), **given)
    if response.status_code not in (200, 201):
        raise refusal_of(response.status_code, response.content)
    return dict(response.json())


def _part_of(event: dict[str, Any]) -> Part:
    """Raises: EdgeAgentError for a job that has failed."""
    match event["type"]:
        case "audio.job.segment":
            segment = msgspec.convert(event["segment"], Segment)
            return Part(until_s=segment.end_s, segments=(segment,))
        case "audio.job.progress":
            return Part(duration_s=event["duration"] or 0.0, until_s=event["transcribed"] or 0.0)
        case "audio.job.completed":
            job = event["job"]
            return Part(
                duration_s=job["duration"], until_s=job["duration"], language=job["language"]
            )
        case "audio.job.failed":
            raise EdgeAgentError(event["job"]["error"]["message"])
        case "audio.job.cancelled":
            raise EdgeAgentError("the job was cancelled")
        case _:
            raise EdgeAgentError(event["error"]["message"])
