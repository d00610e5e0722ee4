"""What is to be erased, and where to look for it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeagent.store.ownership import Selector

# Clears every place outside the database; returns the names of those that were cleared.
Forget = Callable[[Selector], Sequence[str]]


def _no_places(_selector: Selector) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class ErasureRequest:
    """`except_held`: erase the rest if some is under legal hold. `drop_backups`: make a new backup, then
    delete the older ones and quarantined files."""

    selector: Selector
    actor: str
    except_held: bool = False
    drop_backups: bool = False


@dataclass(frozen=True)
class ErasureScope:
    """Where to search, and how to clear other places. `leave_out`: folders without client data."""

    state_dir: Path
    leave_out: Sequence[Path] = ()
    forget: Forget = _no_places
