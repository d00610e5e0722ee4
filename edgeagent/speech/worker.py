"""The process of one speech model: recordings arrive in parts, windows are heard one a step.

receiver thread   gathers the parts of each recording, within bounds
main thread       takes a step of the most urgent live session, else of the most urgent recording: decodes a
                  block of it, or hears a window
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeagent.errors import BodyTooLarge, EdgeAgentError, EngineFailed
from edgeagent.speech.job_queue import Job, JobQueue
from edgeagent.speech.live_protocol import DropItem, EndItem, Listen, LiveAudio
from edgeagent.speech.protocol import (
    Audio,
    Fetch,
    Finished,
    LongRecording,
    SpeechConfig,
    SpeechFacts,
    SpeechHealth,
    Surveyed,
    Transcribe,
    Window,
    decode_to_worker,
)
from edgeagent.types.worker_config import ComputeLimits
from edgeagent.worker import confinement, entry, refusals
from edgeagent.worker.channel import Channel
from edgeagent.worker.heap import return_free_pages, use_one_arena
from edgeagent.worker.loop import Loop
from edgeagent.worker.protocol import Cancel

if TYPE_CHECKING:
    from edgeagent.speech.audio import AudioBounds, Source
    from edgeagent.speech.options import SpeechOptions
    from edgeagent.speech.remote_recording import RemoteRecording
    from edgeagent.speech.segments import Checkpoint
    from edgeagent.speech.transcriber import Transcriber

logger = logging.getLogger(__name__)

# What a step sends, if anything.
Reply = Surveyed | Window | None


class SpeechWorker:
    """One loaded speech model, answering one daemon."""

    def __init__(
        self, channel: Channel, config: SpeechConfig, transcriber: Transcriber, started_s: float
    ) -> None:
        self._channel = channel
        self._config = config
        self._transcriber = transcriber
        self._loop = Loop(channel)
        self._queue: JobQueue[Reply] = JobQueue()
        self._arriving: dict[int, tuple[Job[Reply], SpeechOptions]] = {}
        self._open: dict[int, Job[Reply]] = {}  # the receiver's, until they end
        self._remote: dict[int, RemoteRecording] = {}  # long recordings, by request
        self._n_steps = 0
        from edgeagent.speech.live_requests import LiveRequests  # behind the confinement

        self._live = LiveRequests(channel, config, transcriber.whisper)
        self._facts = SpeechFacts(
            pid=os.getpid(),
            load_ms=1e3 * (time.monotonic() - started_s),
            languages=transcriber.whisper.languages,
        )

    def run(self) -> None:
        """Serve until the daemon goes or ends this process."""
        self._loop.run(self._facts, self, self._handle, confinement.rss_bytes)

    # --- receiver thread

    def _handle(self, message: Any) -> None:
        match message:
            case Transcribe():
                self._begin(message)
            case Audio(request_id, data) if request_id in self._arriving:
                self._add(request_id, data)
            case Audio(request_id, data, offset) if request_id in self._remote:
                self._remote[request_id].receive(offset, data)
            case Cancel(request_id) if (job := self._open.get(request_id)) is not None:
                job.is_cancelled = True
                job.abandon()
                if self._arriving.pop(request_id, None) is not None:
                    self._loop.post(lambda: self._end(job))
                self._loop.wake()
            case Cancel(request_id):
                self._loop.post(lambda: self._live.cancel(request_id))
            case Listen() | LiveAudio() | EndItem() | DropItem():
                self._loop.post(lambda: self._live.handle(message))

    def _begin(self, request: Transcribe) -> None:
        config, held = self._config, sum(job.n_bytes for job in self._open.values())
        is_long = request.long is not None  # and takes no memory here
        if request.n_bytes > config.max_bytes and not is_long:
            error: EdgeAgentError = BodyTooLarge(
                f"The file has {request.n_bytes} bytes, at most {config.max_bytes} are taken: compress or "
                "split it.",
                param="file",
            )
            self._channel.refuse(request.request_id, error)
        elif len(self._open) >= config.queue_limit or (
            held + request.n_bytes > 2 * config.max_bytes and not is_long
        ):
            error = refusals.queue_full(config.model_id, len(self._open))
            self._channel.refuse(request.request_id, error)
        elif request.long is not None:
            self._begin_long(request, request.long)
        else:
            job: Job[Reply] = Job(request.request_id, request.n_bytes, request.priority)
            self._open[job.request_id] = job
            self._arriving[job.request_id] = (job, request.options)
            self._add(job.request_id, b"")

    def _begin_long(self, request: Transcribe, long: LongRecording) -> None:
        from edgeagent.speech.remote_recording import RemoteRecording

        request_id = request.request_id
        job: Job[Reply] = Job(request_id, 0, request.priority)
        remote = RemoteRecording(
            request.n_bytes,
            lambda offset, n_bytes: self._channel.send(Fetch(request_id, offset, n_bytes)),
        )
        job.abandon = remote.abandon
        self._open[request_id], self._remote[request_id] = job, remote
        self._loop.post(lambda: self._start_long(job, remote, request.options, long))

    def _add(self, request_id: int, data: bytes) -> None:
        job, options = self._arriving[request_id]
        job.data += data
        if job.is_whole:
            del self._arriving[request_id]
            self._loop.post(lambda: self._start(job, options))

    # --- main thread

    def _start(self, job: Job[Reply], options: SpeechOptions) -> None:
        recording, job.data = bytes(job.data), bytearray()
        from edgeagent.speech.audio import AudioBounds

        bounds = AudioBounds(self._config.max_bytes, self._config.max_seconds)
        job.steps = self._work(job, recording, options, bounds)
        self._queue.add(job)

    def _start_long(
        self,
        job: Job[Reply],
        remote: RemoteRecording,
        options: SpeechOptions,
        long: LongRecording,
    ) -> None:
        from edgeagent.speech.audio import AudioBounds

        bounds = AudioBounds(len(remote), long.max_seconds)
        job.steps = self._work(job, remote, options, bounds, long.checkpoint, has_context=True)
        self._queue.add(job)

    def _work(
        self,
        job: Job[Reply],
        recording: Source,
        options: SpeechOptions,
        bounds: AudioBounds,
        done: Checkpoint | None = None,
        *,
        has_context: bool = False,
    ) -> Iterator[Reply]:
        """A recording step by step, from a checkpoint on. Raises: InvalidParameter, BodyTooLarge."""
        from edgeagent.speech.transcriber import Survey, surveying

        self._transcriber.whisper.check(options)
        survey = None
        if done is not None:
            survey = Survey(done.duration_s, done.n_channels, done.has_speakers)
        else:
            for found in surveying(recording, bounds):
                survey = found
                yield None
        assert survey is not None, "a recording without samples is refused"
        has_speakers = options.speakers == "channel" and survey.do_channels_differ
        yield Surveyed(job.request_id, survey.duration_s, survey.n_channels, has_speakers)
        for heard in self._transcriber.transcribe(recording, options, survey, bounds, done):
            if heard is None:
                yield None
            else:
                context = heard.context if has_context else ()
                yield Window(job.request_id, heard.segments, heard.until_s, heard.language, context)

    @property
    def is_idle(self) -> bool:
        return not len(self._queue) and self._live.is_idle

    def step(self) -> bool:
        """Let the most urgent take a step: live sessions before recordings. False: there is nothing to do."""
        if self._live.step():
            self._n_steps += 1
            return True
        job = self._queue.next()
        if job is None:
            return False
        assert job.steps is not None
        self._n_steps += 1
        job.n_steps += 1
        try:
            if job.is_cancelled:
                self._end(job)
            elif (reply := next(job.steps)) is not None:
                self._channel.send(reply)
        except StopIteration:
            self._end(job)
        except EdgeAgentError as exc:
            self._end(job, None if job.is_cancelled else exc)
        except (
            Exception
        ) as exc:  # of the libraries, at what a recording holds: its own request ends
            logger.exception("transcription_failed request=%s", job.request_id)
            self._end(
                job, EngineFailed(f"The recording could not be heard ({type(exc).__name__}).")
            )
        return True

    def _end(self, job: Job[Reply], error: EdgeAgentError | None = None) -> None:
        self._queue.remove(job.request_id)
        self._open.pop(job.request_id, None)
        self._remote.pop(job.request_id, None)
        job.steps, job.data = None, bytearray()
        if error is not None:
            self._channel.refuse(job.request_id, error)
        else:
            self._channel.send(Finished(job.request_id))
        if not self._open:
            return_free_pages()  # the decoder and the model leave holes behind

    def limit(self, limits: ComputeLimits) -> None:
        """CTranslate2 keeps the threads that it was loaded with; windows give way instead."""

    def health(self, rss_bytes: int) -> SpeechHealth:
        n = len(self._open) + len(self._live)
        return SpeechHealth(
            n_steps=self._n_steps, n_running=min(1, n), n_waiting=max(0, n - 1), rss_bytes=rss_bytes
        )


def load(channel: Channel, config: SpeechConfig, daemon_pid: int, started_s: float) -> SpeechWorker:
    """Confine this process, then load the model. Raises: ModelUnusable."""
    use_one_arena()  # before there are threads
    # ONNX Runtime chooses its kernels by /proc/cpuinfo.
    confinement.enter(read=[config.path, "/proc/cpuinfo"], parent=daemon_pid)
    with _muted():
        # Imported behind the confinement: these bring threads, which it would not hold.
        from edgeagent.speech.transcriber import Transcriber
        from edgeagent.speech.vad import load_detector
        from edgeagent.speech.whisper import Whisper

        load_detector()
    whisper = Whisper(
        Path(config.path), n_threads=config.n_threads, compute_type=config.compute_type
    )
    return SpeechWorker(channel, config, Transcriber(whisper), started_s)


@contextmanager
def _muted() -> Iterator[None]:
    """Without what ONNX Runtime writes to standard error while it is loaded, which is of the confinement."""
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


if __name__ == "__main__":
    entry.run(sys.argv, decode_to_worker, load)
