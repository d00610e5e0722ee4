"""The settings of one daemon: nested frozen tables, built once and passed down.

One file holds one table of the configuration; `settings` puts them together, `layers` reads and merges where
values come from, `names` and `old_names` know what each setting is called.
"""

from edgeagent.settings.settings import BUNDLES, Settings
from edgeagent.settings.settings_sources import SYSTEM_CONFIG, Renaming, ResolvedSettings, resolve

__all__ = ["BUNDLES", "SYSTEM_CONFIG", "Renaming", "ResolvedSettings", "Settings", "resolve"]
