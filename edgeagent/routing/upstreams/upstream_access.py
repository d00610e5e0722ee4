"""Which requests may be sent to an upstream. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.settings.route_rules import Privacy
from edgeagent.settings.upstreams import UpstreamSettings

EVERY_KEY = "*"


@dataclass(frozen=True)
class Sender:
    """For whom a request would be sent: its key, the owner of the key, and where it may be answered. It has
    come through `n_hops` other daemons."""

    key_id: str
    owner: str
    privacy: Privacy = "local"
    request_id: str = ""
    n_hops: int = 0


@dataclass(frozen=True)
class Access:
    """What one upstream may be sent: requests of these keys (ids or owners) and privacy classes."""

    keys: frozenset[str]
    privacy: frozenset[str]

    @classmethod
    def of(cls, settings: UpstreamSettings) -> Access:
        return cls(frozenset(settings.keys), frozenset(settings.privacy))

    def admits(self, sender: Sender) -> bool:
        if sender.privacy == "local" or sender.privacy not in self.privacy:
            return False
        return self.admits_key(sender.key_id, sender.owner)

    def admits_key(self, key_id: str, owner: str) -> bool:
        return EVERY_KEY in self.keys or key_id in self.keys or owner in self.keys
