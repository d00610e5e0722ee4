"""`[speech]` and `[speech.jobs]`: transcription of recordings, at once and as jobs."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.table import SettingsTable


class AudioJobSettings(SettingsTable):
    max_recording_bytes: int = Field(
        default=1 << 30, ge=1024, le=1 << 40, description="size limit of the recording of a job"
    )
    max_audio_s: float = Field(
        default=86_400.0, gt=0, le=604_800, description="longest recording of a job"
    )
    max_open_per_owner: int = Field(
        default=16, ge=1, le=10_000, description="jobs of one owner that have not ended"
    )
    max_total_bytes: int = Field(
        default=8 << 30,
        ge=1024,
        le=1 << 44,
        description="disk space for the recordings of all jobs",
    )
    keep_audio: bool = Field(
        default=False,
        description="keep the recording of a completed job until its retention ends; off: erased at once",
    )


class SpeechSettings(SettingsTable):
    max_upload_bytes: int = Field(
        default=32 << 20, ge=1024, le=1 << 30, description="size limit of an uploaded recording"
    )
    max_audio_s: float = Field(
        default=4 * 3600.0, gt=0, le=86_400, description="longest recording that is transcribed"
    )
    jobs: AudioJobSettings = AudioJobSettings()
