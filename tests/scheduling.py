"""Which test modules run in one process when several processes run tests.

A process that runs tests imports each client library once, and makes each session fixture once. Modules that
share something dear are therefore given to the same process, as one unit of work; all others go file by file.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

# What a module mentions that belongs to a group. The first that matches counts.
GROUPS = {
    "torch": re.compile(r"\bimport torch\b|\bedgeagent\.forge\b|\btests\.forge\b"),
    # The clients of other projects are imported once, and each daemon of a session is started once.
    "session daemons": re.compile(
        r"\b(smollm|shallow|tales)_(daemon|client)\b|lazily\(\"(anthropic|ollama)\"\)"
    ),
}


@functools.cache
def group_of(file: str) -> str:
    """The name of the group that a test module belongs to, or the module itself."""
    path = Path(__file__).resolve().parents[1] / file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return next((name for name, mentions in GROUPS.items() if mentions.search(text)), file)


class GroupScheduling(LoadFileScheduling):
    """`--dist loadfile`, with the modules of a group as one unit."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(super()._split_scope(nodeid))
