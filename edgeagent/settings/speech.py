"""`[speech]`: transcription of recordings."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.table import SettingsTable


class SpeechSettings(SettingsTable):
    max_upload_bytes: int = Field(
        default=32 << 20, ge=1024, le=1 << 30, description="size limit of an uploaded recording"
    )
    max_audio_s: float = Field(
        default=4 * 3600.0, gt=0, le=86_400, description="longest recording that is transcribed"
    )
