"""All settings of one daemon: the top-level values and the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeagent.settings.api import ApiSettings
from edgeagent.settings.batch import BatchSettings
from edgeagent.settings.device import DeviceSettings
from edgeagent.settings.engine import EngineSettings
from edgeagent.settings.environment import default_key_file, default_state_dir
from edgeagent.settings.governor import GovernorSettings
from edgeagent.settings.http import HttpSettings
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.settings.models import ModelsSettings
from edgeagent.settings.pool import PoolSettings
from edgeagent.settings.routing import RoutingSettings
from edgeagent.settings.settings_table import SettingsTable
from edgeagent.settings.speech import SpeechSettings
from edgeagent.settings.store import StoreSettings
from edgeagent.settings.traces import TracesSettings
from edgeagent.settings.worker import WorkerSettings

BUNDLES = ".bundles"  # directory in the models directory


class Settings(SettingsTable):
    """Built once at start, frozen, passed down; each room is given its own table."""

    state_dir: Path = Field(
        default_factory=default_state_dir, description="directory of everything the daemon stores"
    )
    offline: bool = Field(default=False, description="refuse everything that needs a network")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level that is logged"
    )
    http: HttpSettings = HttpSettings()
    api: ApiSettings = ApiSettings()
    batch: BatchSettings = BatchSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    models: ModelsSettings = ModelsSettings()
    routing: RoutingSettings = RoutingSettings()
    pool: PoolSettings = PoolSettings()
    engine: EngineSettings = EngineSettings()
    worker: WorkerSettings = WorkerSettings()
    speech: SpeechSettings = SpeechSettings()
    store: StoreSettings = StoreSettings()
    device: DeviceSettings = DeviceSettings()
    governor: GovernorSettings = GovernorSettings()
    traces: TracesSettings = TracesSettings()

    @property
    def store_dir(self) -> Path:
        return self.state_dir / "store"

    @property
    def effective_store_key_file(self) -> Path:
        return self.store.key_file or default_key_file()

    @property
    def effective_audit_anchor(self) -> Path:
        return self.store.audit_anchor or self.state_dir / "audit.anchor"

    @property
    def effective_models_dir(self) -> Path:
        return self.models.dir or self.state_dir / "models"

    @property
    def bundles_dir(self) -> Path:
        """Directory of the files that bundles bring besides models: profiles, catalogs, wheels."""
        return self.effective_models_dir / BUNDLES
