"""Recordings to transcripts: which model, a place on it, its windows, and what is noted.

    which model -> lease -> transcribe -> survey -> windows -> note

Whoever takes a `TranscriptionRequest` must `release` it: that cancels what runs and gives the place back.
"""

from __future__ import annotations

import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from edgeagent.errors import EngineDied
from edgeagent.routing.decision import Decision
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.engines import Engines
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.serving.request_log import RequestRecord
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.speech.client import SpeechClient, Transcription
from edgeagent.speech.languages import LANGUAGES
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import Surveyed, Window
from edgeagent.speech.segments import Segment, Transcript
from edgeagent.speech.speaker_names import check_names

logger = logging.getLogger(__name__)

# Names of other providers' models, which stand for the speech model that is installed.
OTHER_NAMES = frozenset(
    {
        "whisper-1", "gpt-transcribe", "gpt-live-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe",
        "gpt-4o-mini-transcribe-2025-12-15", "gpt-4o-transcribe-diarize", "gpt-realtime-whisper",
    }
)  # fmt: skip
# Whisper models for English are named so.
ENGLISH_ONLY = ".en"


@dataclass(frozen=True)
class Recording:
    """What is to be transcribed, and how."""

    data: bytes
    options: SpeechOptions
    priority: int = 0


class TranscriptionRequest:
    """One recording on its way through a model. Event loop's thread only; `release()` may be called twice."""

    def __init__(
        self,
        origin: RequestOrigin,
        decision: Decision,
        recording: Recording,
        engines: Engines,
        quota: AudioQuota,
    ) -> None:
        self.decision = decision
        self.recording = recording
        self.record = RequestRecord(origin, decision)
        self.surveyed: Surveyed | None = None
        self.segments: list[Segment] = []
        self.language = ""
        self.kept_id: str | None = None  # once it is stored
        self._engines = engines
        self._quota = quota
        self._is_counted = False
        self._stack = AsyncExitStack()
        self._stream: Transcription | None = None
        self._first_ms: float | None = None
        self._early: list[Window] = []  # that came with the survey
        self._is_released = False

    @property
    def duration_s(self) -> float:
        """Seconds of the recording; 0 until they are known."""
        return self.surveyed.duration_s if self.surveyed is not None else 0.0

    async def begin(self) -> None:
        """Wait until the recording is known to be whole and within bounds.

        A worker that dies before is asked once more, in its next life; once, because the recording may be
        what killed it. Raises what `Pool.lease` and the worker raise.
        """
        try:
            await self._begin()
        except EngineDied:
            logger.info("request_repeated model=%s reason=engine_died", self.decision.model_id)
            await self._stack.aclose()
            self._stack = AsyncExitStack()
            await self._begin()

    async def _begin(self) -> None:
        lease = self._engines.lease_worker(self.decision.model_id, SpeechClient)
        client = await self._stack.enter_async_context(lease)
        recording = self.recording
        self._stream = client.transcribe(
            recording.data, recording.options, priority=recording.priority
        )
        first, *rest = await self._stream.take()
        assert isinstance(first, Surveyed), "the survey comes before any window"
        self.surveyed = first
        self._early = [reply for reply in rest if isinstance(reply, Window)]
        await self._count(first.duration_s)
        check_names(recording.options, first)

    async def _count(self, audio_s: float) -> None:
        """Raises: RateLimited where the key has had its audio of a day."""
        if not self._is_counted:
            origin = self.record.origin
            await self._quota.take(origin.key_id, origin.audio_s_per_day, audio_s)
            self._is_counted = True

    async def take(self) -> list[Segment] | None:
        """The segments since the last call, maybe none; None at the end. Raises what the worker raises."""
        assert self._stream is not None, "it has begun"
        if self._early:
            windows, self._early = self._early, []
        elif replies := await self._stream.take():
            windows = [reply for reply in replies if isinstance(reply, Window)]
        else:
            self.record.status = 200
            self._engines.record_answer(self.decision.model_id)
            return None
        return self._taken(windows)

    def _taken(self, windows: list[Window]) -> list[Segment]:
        found = [segment for window in windows for segment in window.segments]
        for window in windows:
            self.language = window.language
        if found and self._first_ms is None:
            self._first_ms = 1e3 * (time.monotonic() - self.record.started_s)
        self.segments += found
        return found

    def transcript(self) -> Transcript:
        """All that was heard so far."""
        options = self.recording.options
        language = self.language or options.language or "en"
        return Transcript(
            segments=tuple(self.segments),
            language="en" if options.task == "translate" else language,
            duration_s=self.duration_s,
            task=options.task,
            id=self.kept_id,
        )

    async def release(self) -> None:
        """Cancel what still runs, give the place back, note how it ended."""
        if self._is_released:
            return
        self._is_released = True
        if self._stream is not None:
            self._stream.cancel()
        await self._stack.aclose()
        row = self.record.row(
            self._engines,
            n_prompt=0,
            queue_ms=None,
            ttft_ms=self._first_ms,
            audio_s=self.duration_s,
        )
        self._engines.log(row)


class TranscriptionService:
    """Gives recordings to the speech models of a pool. Event loop's thread only."""

    def __init__(self, engines: Engines, chooser: ModelChooser, quota: AudioQuota) -> None:
        self._engines = engines
        self._chooser = chooser
        self._quota = quota

    async def model_for(self, model: str | None) -> Decision:
        """The speech model that a name means. Raises: InvalidParameter, ModelNotFound."""
        is_other = model is not None and model.lower() in OTHER_NAMES
        return await self._chooser.for_task("transcribe", None if is_other else model)

    async def models(self) -> list[tuple[str, tuple[str, ...]]]:
        """The speech models, with the languages of each."""
        return [
            (name, ("en",) if name.endswith(ENGLISH_ONLY) else tuple(LANGUAGES))
            for name in await self._chooser.with_task("transcribe")
        ]

    def transcribe(
        self, origin: RequestOrigin, decision: Decision, recording: Recording
    ) -> TranscriptionRequest:
        """A request that waits for `begin`. Whoever takes it must `release` it."""
        return TranscriptionRequest(origin, decision, recording, self._engines, self._quota)
