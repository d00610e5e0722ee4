"""The privacy of a stored conversation: once a turn of it was private, what continues it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeagent.routing.auto_router import LOCAL
from edgeagent.routing.decision import Decision

PRIVACY = "privacy"
_ORDER = ("local", "site", "any")


def strictest(classes: Iterable[str | None]) -> str:
    """The strictest privacy class; None stands for "any", an unknown word for "local"."""
    found = [one if one in _ORDER else "local" for one in classes if one is not None]
    return min(found, key=_ORDER.index, default="any")


def with_privacy(metadata: Mapping[str, str], before: Iterable[str | None]) -> dict[str, str]:
    """The metadata of a turn, with the privacy of what it continues where that is stricter."""
    own = metadata.get(PRIVACY)
    needed = strictest(before)
    if needed == "any" or (own is not None and strictest([own, needed]) == own):
        return dict(metadata)
    return {**metadata, PRIVACY: needed}


def stored_metadata(metadata: Mapping[str, str], decision: Decision) -> dict[str, str]:
    """The metadata that the response keeps: a turn of `auto:local` is private, too."""
    return with_privacy(metadata, ["local"] if decision.route == LOCAL else [])
