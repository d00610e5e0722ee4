"""`edgeagent listen`: what is said, as it is said, by the running daemon or by a worker of this command."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click

from edgeagent.cli.shared.audio_source import PIECE_S, microphone, standard_input
from edgeagent.cli.shared.daemon import base_url, is_running
from edgeagent.cli.shared.live_transcribers import DaemonListener, Told, WorkerListener
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.speech_options import language_of, vocabulary_of
from edgeagent.speech.options import SpeechOptions

Listener = DaemonListener | WorkerListener


@click.command()
@click.option("--language", metavar="CODE", help="Language that is spoken. Default: detected.")
@click.option(
    "--vocabulary",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Words to expect, one a line.",
)
@click.option("--prompt", default="", metavar="TEXT", help="Text that precedes what is said.")
@click.option(
    "--device", metavar="NAME", help="Name or number of a microphone. Default: the system's."
)
@click.option(
    "--stdin", is_flag=True, help="Hear samples on standard input: 16 kHz, 16 bits, one channel."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86_400),
    help="Stop after this much audio. Default: Ctrl-C.",
)
@click.option("--model", metavar="ID", help="Speech model. Default: the first that is installed.")
@click.option("--host", metavar="ADDRESS", help="Address of the daemon. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 8484.")
@settings_options
def listen(
    config: Path | None, language: str | None, vocabulary: Path | None, prompt: str, device: str | None,
    stdin: bool, seconds: float | None, model: str | None, **flags: Any,
) -> None:  # fmt: skip
    """Write down what is said: a line for each turn, words as they become final.

    Uses the running daemon, or a worker of its own that ends with the command. Nothing leaves this device.
    """
    here = configured(config, **flags)
    options = SpeechOptions(
        language=language_of(language),
        keywords=vocabulary_of(vocabulary),
        prompt=prompt,
    )
    listener: Listener = WorkerListener(here, model, options)
    if is_running(url := base_url(here.settings)):
        listener = DaemonListener(url, model, options)
    source = standard_input() if stdin else microphone(device)
    asyncio.run(_listen(listener, source, seconds))


async def _listen(listener: Listener, source: AsyncIterator[bytes], seconds: float | None) -> None:
    """Until the source ends, `seconds` are over or Ctrl-C; what was said until then is still written."""
    first = await anext(
        source, b""
    )  # a microphone that is missing is told before a model is loaded
    async with listener:
        if sys.stderr.isatty():
            click.echo("Listening; Ctrl-C ends.", err=True)
        sending = asyncio.create_task(_send(listener, first, source, seconds), name="microphone")
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(signal.SIGINT, sending.cancel)
        writing = asyncio.create_task(_write(listener), name="transcript")
        await asyncio.wait({sending, writing}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not sending.cancelled() and (error := sending.exception()):
            writing.cancel()
            raise error
        try:
            await writing
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(
    listener: Listener, first: bytes, source: AsyncIterator[bytes], seconds: float | None
) -> None:
    try:
        left_s = seconds if seconds is not None else float("inf")
        data = first
        while data and left_s > 0:
            await listener.hear(data)
            left_s -= PIECE_S
            data = await anext(source, b"") if left_s > 0 else b""
    except asyncio.CancelledError:
        await listener.finish()
        raise
    await listener.finish()


async def _write(listener: Listener) -> None:
    """Print words as they come and a line end behind each turn, until all is told."""
    n_open, is_over, has_text = 0, False, False
    async for told in listener.told():
        match told:
            case Told("began"):
                n_open += 1
            case Told("text", text):
                _print(text)
                has_text = True
            case Told("ended"):
                n_open -= 1
                if has_text:
                    _print("\n")
                has_text = False
            case Told("cleared"):
                is_over = True
        if is_over and n_open <= 0:
            return


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
