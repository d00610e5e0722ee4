"""How a speech model is loaded, and what that needs."""

from __future__ import annotations

from edgeagent.catalog.install_record import InstalledModel
from edgeagent.pool.memory import Placement
from edgeagent.settings import Settings
from edgeagent.speech.client import SpeechClient
from edgeagent.speech.protocol import SpeechConfig

# Python with CTranslate2, FFmpeg and the voice detector, and a window being heard: measured with tiny.en on
# x86-64, 2026-11.
WORKER_BYTES = 240 << 20
# Weights in 8 bits of a file in 16, and what a window of a larger model needs beside.
PART_OF_FILE = 0.8


def speech_placement(model: InstalledModel, settings: Settings, n_threads: int) -> Placement:
    """The placement of an installed speech model. Its recordings take memory of their own."""
    config = SpeechConfig(
        model_id=model.id,
        path=str(model.path.parent),
        n_threads=n_threads,
        max_bytes=settings.speech.max_upload_bytes,
        max_seconds=settings.speech.max_audio_s,
        queue_limit=settings.engine.queue_limit,
        live_sessions=settings.speech.live.max_sessions,
    )
    weights = round(PART_OF_FILE * model.size_bytes)
    need = WORKER_BYTES + weights + 2 * settings.speech.max_upload_bytes
    arithmetic = (
        f"worker {WORKER_BYTES / 1e6:.0f} MB, weights {weights / 1e6:.0f} MB, recordings "
        f"{2 * settings.speech.max_upload_bytes / 1e6:.0f} MB"
    )
    return Placement(SpeechClient, config, need, arithmetic)
