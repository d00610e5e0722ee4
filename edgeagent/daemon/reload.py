"""Settings that a running daemon takes over when it gets SIGHUP: `systemctl reload edgeagent`.

Only those that are read anew where they are used. Others are named in the log: they need a restart. API keys
and their limits are no settings and always count at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass

from edgeagent.daemon.notify import ServiceManager
from edgeagent.errors import EdgeAgentError
from edgeagent.pool import Pool
from edgeagent.settings import Settings
from edgeagent.settings.setting_names import FIELDS, value_of

logger = logging.getLogger(__name__)

# Settings, or tables of them, that can be replaced while the daemon runs.
LIVE = ("log_level", "pool")


@dataclass(frozen=True)
class SettingsChange:
    """The names of the settings that differ: those that count from now on, and those that need a restart."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def change(old: Settings, new: Settings) -> SettingsChange:
    """What a reload does. Pure."""
    differing = [name for name in FIELDS if value_of(old, name) != value_of(new, name)]
    live = [name for name in differing if name.partition(".")[0] in LIVE]
    return SettingsChange(tuple(live), tuple(name for name in differing if name not in live))


class Reload:
    """Event loop's thread only. `read` reads all layers of the settings again; it blocks."""

    def __init__(
        self, settings: Settings, read: Callable[[], Settings], pool: Pool, manager: ServiceManager
    ) -> None:
        self._settings = settings
        self._read = read
        self._pool = pool
        self._manager = manager
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Reload on SIGHUP from now on."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._begin)

    def _begin(self) -> None:
        task = asyncio.create_task(self.run(), name="reload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Read the settings again and take over what can be. Wrong ones are logged, and nothing changes."""
        async with self._lock:
            self._manager.reloading()
            try:
                new = await asyncio.to_thread(self._read)
            except EdgeAgentError as exc:
                logger.error("reload_refused %s", exc.message)
            else:
                self._take(new)
            self._manager.ready("Ready")

    def _take(self, new: Settings) -> None:
        found = change(self._settings, new)
        live = {name: getattr(new, name) for name in LIVE}
        # What needs a restart stays as it runs, and is named at every reload until then.
        self._settings = self._settings.model_copy(update=live)
        logging.getLogger().setLevel(new.log_level.upper())
        self._pool.settings, self._pool.log_level = new.pool, new.log_level
        logger.info("reloaded changed=%s", ",".join(found.live) or "nothing")
        if found.restart:
            logger.warning("restart_needed settings=%s", ",".join(found.restart))
