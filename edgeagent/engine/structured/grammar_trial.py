"""A process that compiles one grammar to see whether it can, one that `fork_server` forks.

It says "ready", reads a grammar from standard input to its end, and writes what is wrong with it, or
nothing. It has little memory, and its parent ends it when the deadline passes.
"""

from __future__ import annotations

import sys

from edgeagent.engine.structured.grammar import tried
from edgeagent.worker import confinement

ADDRESS_SPACE_BYTES = 512 << 20


def main(parent: int) -> None:
    confinement.enter(oom_score_adj=None, address_space_bytes=ADDRESS_SPACE_BYTES, parent=parent)
    tried("start: /a/")  # imports are done: the deadline may begin
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdout.write(tried(sys.stdin.read()))
