"""`edgeagent transcribe`: recordings to text, by the running daemon or by a worker of this command."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edgeagent.cli.shared.daemon import authorization, base_url, is_running, refusal_of
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.speech_options import language_of, vocabulary_of
from edgeagent.cli.shared.speech_worker import LOAD_TIMEOUT_S, speech_config
from edgeagent.cli.transcribe_job import job_parts
from edgeagent.cli.transcribe_part import Part
from edgeagent.cli.transcribe_watch import FolderWatch
from edgeagent.device.configuration import Configuration
from edgeagent.durable import replace_text
from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.speech import transcript_formats
from edgeagent.speech.client import SpeechClient
from edgeagent.speech.options import SpeechOptions
from edgeagent.speech.protocol import Surveyed, Window
from edgeagent.speech.segments import Segment, Transcript
from edgeagent.speech.speaker_names import check_names

FORM_BYTES = 64 << 10
ENDINGS = {"text": "txt", "srt": "srt", "vtt": "vtt"}


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(list(transcript_formats.FORMATS)),
    default="text",
    show_default=True,
    help="What is printed or written.",
)
@click.option("--language", metavar="CODE", help="Language of the recordings. Default: detected.")
@click.option("--words", is_flag=True, help="With verbose_json: the times of each word.")
@click.option(
    "--speakers",
    metavar="NAMES",
    flag_value="",
    is_flag=False,
    help="Tell speakers apart by channel; names such as `doctor,patient` in the order of the channels.",
)
@click.option(
    "--vocabulary",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Words to expect, one a line.",
)
@click.option("--prompt", default="", metavar="TEXT", help="Text that precedes the recordings.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a file for each recording there, instead of printing.",
)
@click.option(
    "--watch",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Transcribe each new recording of this folder once it is complete, until Ctrl-C. Writes to --out, "
    "or beside the recordings.",
)
@click.option("--model", metavar="ID", help="Speech model. Default: the first that is installed.")
@click.option("--host", metavar="ADDRESS", help="Address of the daemon. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 8484.")
@settings_options
def transcribe(
    config: Path | None, files: tuple[Path, ...], form: transcript_formats.Format, language: str | None,
    words: bool, speakers: str | None, vocabulary: Path | None, prompt: str, out: Path | None,
    watch: Path | None, model: str | None, **flags: Any,
) -> None:  # fmt: skip
    """Transcribe FILES: flac, m4a, mp3, ogg, wav or webm.

    Uses the running daemon, or a worker of its own that ends with the command. Nothing leaves this device.
    What is too large for one request is sent to the daemon as a job, which is deleted at the end.
    """
    if bool(files) == bool(watch):
        raise click.UsageError("Give FILES, or a folder with --watch.")
    here = configured(config, **flags)
    names = tuple(name.strip() for name in (speakers or "").split(",") if name.strip())
    by_channel = speakers is not None or form == "diarized_json"
    options = SpeechOptions(
        language=language_of(language),
        prompt=prompt,
        keywords=vocabulary_of(vocabulary),
        speakers="channel" if by_channel else "none",
        speaker_names=names,
    )
    source: Daemon | Worker = Worker(here, model)
    if is_running(url := base_url(here.settings)):
        source = Daemon(url, model, here.settings.speech.max_upload_bytes)
    output = Output(form, ("segment", "word") if words else (), out or watch, len(files))
    found = _given(files) if watch is None else FolderWatch(watch, output.is_done).files()
    n_failed = asyncio.run(_all(source, found, options, output))
    if n_failed:
        raise click.exceptions.Exit(2)


async def _given(files: tuple[Path, ...]) -> AsyncIterator[Path]:
    for path in files:
        yield path


@dataclass(frozen=True)
class Output:
    """In which form transcripts are written, and where: to `folder`, or else to standard output."""

    form: transcript_formats.Format
    granularities: tuple[transcript_formats.Granularity, ...]
    folder: Path | None
    n_files: int
    printed: list[str] = field(default_factory=list)  # on a terminal below the bars

    def target(self, path: Path) -> Path:
        assert self.folder is not None
        return self.folder / f"{path.stem}.{ENDINGS.get(self.form, 'json')}"

    def is_done(self, path: Path) -> bool:
        """Whether there is a transcript that is newer than the recording."""
        target = self.target(path)
        return target.exists() and target.stat().st_mtime_ns >= path.stat().st_mtime_ns

    def put(self, path: Path, transcript: Transcript) -> None:
        """Raises: OSError."""
        text = transcript_formats.rendered(transcript, self.form, self.granularities)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(self.target(path), text)
            return
        head = f"{path}:\n" if self.n_files > 1 and self.form == "text" else ""
        self.printed.append(head + text + ("" if text.endswith("\n") else "\n"))
        if not sys.stdout.isatty():
            self.flush()

    def flush(self) -> None:
        sys.stdout.write("".join(self.printed))
        sys.stdout.flush()
        self.printed.clear()


async def _all(
    source: Daemon | Worker, files: AsyncIterator[Path], options: SpeechOptions, output: Output
) -> int:
    """Transcribe file after file. Returns how many could not be."""
    n_failed = 0
    async with source:
        with _progress() as bar:
            async for path in files:
                try:
                    transcript = await _one(source, path, options, bar)
                    await asyncio.to_thread(output.put, path, transcript)
                except (EdgeAgentError, httpx.TransportError, OSError) as exc:
                    n_failed += 1
                    bar.console.print(
                        f"edgeagent: {path}: {_reason(exc)}",
                        markup=False,
                        highlight=False,
                        soft_wrap=True,  # a long path stays in one piece
                    )
    output.flush()
    return n_failed


def _reason(exc: Exception) -> str:
    if isinstance(exc, EdgeAgentError):
        return exc.message
    what = "it cannot be read or written" if isinstance(exc, OSError) else "the daemon has gone"
    return f"{what} ({exc})"


async def _one(
    source: Daemon | Worker, path: Path, options: SpeechOptions, bar: Progress
) -> Transcript:
    task = bar.add_task(path.name, total=None, rate="")
    started_s = time.monotonic()
    segments: list[Segment] = []
    duration_s, language = 0.0, options.language or ""
    try:
        async for part in source.parts(path, options):
            duration_s = part.duration_s or duration_s
            language = part.language or language
            segments += part.segments
            _show(bar, task, duration_s, part.until_s, time.monotonic() - started_s)
        _show(bar, task, duration_s, duration_s, time.monotonic() - started_s)
    except BaseException:
        bar.remove_task(task)
        raise
    return Transcript(segments=tuple(segments), language=language or "en", duration_s=duration_s)


def _show(bar: Progress, task: TaskID, duration_s: float, until_s: float, took_s: float) -> None:
    """The bar counts seconds of audio; beside it the real-time factor: seconds of work for each of audio."""
    rate = f"{until_s:.0f}/{duration_s:.0f} s"
    if until_s:
        rate += f", real-time factor {took_s / until_s:.2f}"
    bar.update(task, total=duration_s or None, completed=until_s, rate=rate)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"), BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar


class Worker:
    """A speech worker of this command, started with the first recording."""

    def __init__(self, here: Configuration, model: str | None) -> None:
        self._here = here
        self._model = model
        self._client: SpeechClient | None = None

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def parts(self, path: Path, options: SpeechOptions) -> AsyncIterator[Part]:
        """Raises: EdgeAgentError, OSError."""
        if self._client is None:
            config = await asyncio.to_thread(speech_config, self._here, self._model)
            process = await asyncio.to_thread(SpeechClient.launch, config, "error")
            self._client = await SpeechClient.start(
                config, timeout_s=LOAD_TIMEOUT_S, process=process
            )
        recording = await asyncio.to_thread(path.read_bytes)
        stream = self._client.transcribe(recording, options)
        async for reply in stream:
            if isinstance(reply, Surveyed):
                try:
                    check_names(options, reply)
                except InvalidParameter:
                    stream.cancel()
                    raise
                yield Part(duration_s=reply.duration_s)
            elif isinstance(reply, Window):
                yield Part(until_s=reply.until_s, segments=reply.segments, language=reply.language)


class Daemon:
    """The running daemon, asked for a stream of segments, or for a job beyond `most_bytes`."""

    def __init__(self, url: str, model: str | None, most_bytes: int) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=600, trust_env=False)
        self._model = model
        self._most_bytes = most_bytes

    async def __aenter__(self) -> Daemon:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def parts(self, path: Path, options: SpeechOptions) -> AsyncIterator[Part]:
        """Raises: EdgeAgentError with the daemon's message, OSError."""
        # A form has some bytes beside the recording.
        n_bytes = (await asyncio.to_thread(path.stat)).st_size
        if n_bytes > self._most_bytes - FORM_BYTES:
            async with aclosing(job_parts(self._http, path, options, self._model)) as parts:
                async for part in parts:
                    yield part
            return
        recording = await asyncio.to_thread(path.read_bytes)
        form: dict[str, Any] = {
            "stream": "true", "include[]": "segments", "prompt": options.prompt,
            "keywords[]": list(options.keywords), "speakers": options.speakers,
            "known_speaker_names[]": list(options.speaker_names),
        }  # fmt: skip
        form |= {"language": options.language} if options.language else {}
        form |= {"model": self._model} if self._model else {}
        async with self._http.stream(
            "POST", "/v1/audio/transcriptions", files={"file": ("recording", recording)}, data=form,
            headers=authorization(),
        ) as response:  # fmt: skip
            if response.status_code != 200:
                raise refusal_of(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    yield _part_of(json.loads(line.removeprefix("data: ")))


def _part_of(event: dict[str, Any]) -> Part:
    """What an event tells. Raises: EdgeAgentError for one that is an error."""
    if "error" in event:
        raise EdgeAgentError(event["error"]["message"])
    if event["type"] == "transcript.created":
        return Part(duration_s=event["duration"])
    if event["type"] == "transcript.text.segment":
        segment = msgspec.convert(event["segment"], Segment)
        return Part(until_s=segment.end_s, segments=(segment,), language=event["language"])
    return Part()
