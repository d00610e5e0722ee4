"""`[batch]`: batches of requests that nobody waits for."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class BatchSettings(SettingsTable):
    max_file_bytes: int = Field(
        default=16 << 20, ge=1024, le=1 << 30, description="size limit of a file of requests"
    )
    max_requests: int = Field(
        default=10_000, ge=1, le=1_000_000, description="requests in one batch"
    )
    max_files: int = Field(
        default=200, ge=1, le=100_000, description="files of one owner, those of answers included"
    )
    max_owner_bytes: int = Field(
        default=256 << 20, ge=1024, le=1 << 40, description="bytes in the files of one owner"
    )
    max_open_per_owner: int = Field(
        default=8, ge=1, le=1000, description="batches of one owner that have not ended"
    )
    n_parallel: int = Field(
        default=4, ge=1, le=64, description="requests of all batches that are done at the same time"
    )
