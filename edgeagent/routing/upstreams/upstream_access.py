"""Which requests may be sent to an upstream. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.errors import Forbidden
from edgeagent.settings.route_rules import Privacy
from edgeagent.settings.upstreams import UpstreamSettings

EVERY_KEY = "*"
# Daemons that a request may come through.
MAX_HOPS = 3


@dataclass(frozen=True)
class Sender:
    """For whom a request would be sent: its key, the owner of the key, and where it may be answered. It has
    come through `n_hops` other daemons."""

    key_id: str
    owner: str
    privacy: Privacy = "local"
    request_id: str = ""
    n_hops: int = 0

    @property
    def may_go_on(self) -> bool:
        """Whether it has not come through too many daemons."""
        return self.n_hops < MAX_HOPS


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


def circle(n_hops: int) -> Forbidden:
    """The error for a request that has come through too many daemons."""
    return Forbidden(
        f"This request has come through {n_hops} edgeagents, the bound is {MAX_HOPS}: their upstreams lead "
        "in a circle, correct `url` or `models` of one of them.",
        param="model",
    )
