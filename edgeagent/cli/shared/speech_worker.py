"""How a command loads a speech model into a worker of its own."""

from __future__ import annotations

from edgeagent.cli.shared.configured_library import catalog_of, integrity_of, library_of
from edgeagent.device.configuration import Configuration
from edgeagent.errors import ModelNotFound
from edgeagent.speech.protocol import SpeechConfig

LOAD_TIMEOUT_S = 180.0
# A file of this command's user need not be as small as an upload.
MAX_BYTES = 1 << 30


def speech_config(here: Configuration, model: str | None) -> SpeechConfig:
    """How the model is loaded; the first that is installed, where none is named.

    Raises: ModelNotFound, and what the check of its file raises.
    """
    settings = here.settings
    known = catalog_of(settings)
    able = [
        found for found in library_of(settings).installed()
        if found.id in known and known.entry(found.id).task == "speech"
    ]  # fmt: skip
    chosen = [found for found in able if model in (None, found.id)]
    if not chosen:
        wanted = f"Speech model {model!r}" if model else "A speech model"
        raise ModelNotFound(
            f"{wanted} is not installed: run `edgeagent models install {model or 'whisper-tiny.en'}`."
        )
    integrity_of(here).verified(chosen[0])
    return SpeechConfig(
        model_id=chosen[0].id,
        path=str(chosen[0].path.parent),
        n_threads=settings.engine.n_threads or here.device.capacity.n_threads_max,
        max_bytes=MAX_BYTES,
        max_seconds=settings.speech.max_audio_s,
    )
