"""What `edgeagent listen` hears: a microphone or standard input, 16 kHz, 16 bits, one channel."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any

from edgeagent.errors import StartFailed

RATE_HZ = 16_000
PIECE_S = 0.1
PIECE_BYTES = round(PIECE_S * RATE_HZ) * 2
# Pieces that wait when the computer is busy: two minutes.
MAX_WAITING = 1200
PIPE = "`arecord -q -f S16_LE -r 16000 -c 1 | edgeagent listen --stdin`"


async def standard_input() -> AsyncGenerator[bytes, None]:
    """Raw samples until the end of standard input."""
    while data := await asyncio.to_thread(os.read, sys.stdin.fileno(), PIECE_BYTES):
        yield data


async def microphone(device: str | None) -> AsyncGenerator[bytes, None]:
    """What a microphone hears, until the command ends. Raises: StartFailed without one."""
    sounddevice = _sounddevice()
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)

    def heard(data: Any, n_frames: int, when: Any, status: Any) -> None:
        """On PortAudio's thread."""
        loop.call_soon_threadsafe(_put, pieces, bytes(data))

    wanted = int(device) if device is not None and device.isdigit() else device
    try:
        stream = sounddevice.RawInputStream(
            samplerate=RATE_HZ, channels=1, dtype="int16", blocksize=PIECE_BYTES // 2, device=wanted,
            callback=heard,
        )  # fmt: skip
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as exc:
        raise StartFailed(
            f"No microphone can be opened ({' '.join(str(exc).split())[:200]}): connect one, choose another "
            f"with --device, or pipe samples in: {PIPE}."
        ) from exc
    try:
        while True:
            yield await pieces.get()
    finally:
        stream.close()


def _put(pieces: asyncio.Queue[bytes], data: bytes) -> None:
    if pieces.full():
        pieces.get_nowait()  # the oldest: what is said now matters more
    pieces.put_nowait(data)


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as exc:
        raise StartFailed(
            "A microphone needs the library sounddevice: run `pip install 'edgeagent[microphone]'`, or pipe "
            f"samples in: {PIPE}."
        ) from exc
    except OSError as exc:  # it looks for the system's library when it is imported
        raise StartFailed(
            "A microphone needs PortAudio, which is not installed: on Debian run `apt install "
            f"libportaudio2`, or pipe samples in: {PIPE}."
        ) from exc
    return sounddevice
