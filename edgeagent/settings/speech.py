"""`[speech]`, `[speech.jobs]`, `[speech.live]`, `[speech.wyoming]`: transcription of recordings and of live
speech."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import NonEmpty, SettingsTable


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
        description="disk space for the recordings of all jobs; an owner with a key gets half of it",
    )
    keep_audio: bool = Field(
        default=False,
        description="keep the recording of a completed job until its retention ends; off: erased at once",
    )


class LiveSettings(SettingsTable):
    max_sessions: int = Field(
        default=4,
        ge=0,
        le=64,
        description="live transcriptions at once, of all clients; 0 turns them off",
    )
    max_sessions_per_key: int = Field(
        default=2, ge=1, le=64, description="live transcriptions at once of one API key"
    )
    idle_timeout_s: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="close a live transcription whose client sends no audio for this long",
    )
    max_item_s: float = Field(
        default=600.0,
        ge=1,
        le=14_400,
        description="longest audio that a client may send without committing it, where it does that itself",
    )
    max_message_bytes: int = Field(
        default=1 << 20,
        ge=4096,
        le=64 << 20,
        description="size limit of one message of a live transcription",
    )


class WyomingSettings(SettingsTable):
    enabled: bool = Field(
        default=False, description="serve live transcription to Home Assistant (Wyoming over TCP)"
    )
    host: NonEmpty = Field(
        default="127.0.0.1",
        description="loopback address to listen on; the protocol has no keys",
    )
    port: int = Field(default=10300, ge=1, le=65535, description="port to listen on")
    max_connections: int = Field(default=16, ge=1, le=1024, description="limit of open connections")
    timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="close a connection whose client reads nothing, sends nothing, or starts and sends no "
        "audio, for this long",
    )


class SpeechSettings(SettingsTable):
    max_upload_bytes: int = Field(
        default=32 << 20, ge=1024, le=1 << 30, description="size limit of an uploaded recording"
    )
    max_audio_s: float = Field(
        default=4 * 3600.0, gt=0, le=86_400, description="longest recording that is transcribed"
    )
    audio_s_per_day: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="audio that a key without a limit of its own may have transcribed within 24 hours; "
        "default: unlimited",
    )
    jobs: AudioJobSettings = AudioJobSettings()
    live: LiveSettings = LiveSettings()
    wyoming: WyomingSettings = WyomingSettings()
