"""The helper process that compiles one grammar as a test.

It writes "ready", reads a grammar from standard input, and writes why the grammar was refused, or nothing. It
has little memory, and the worker kills it at the deadline.
"""

from __future__ import annotations

import sys

from edgeagent.engine.structured.grammar import tried
from edgeagent.worker import confinement

ADDRESS_SPACE_BYTES = 512 << 20


def main(parent: int) -> None:
    confinement.enter(oom_score_adj=None, address_space_bytes=ADDRESS_SPACE_BYTES, parent=parent)
    tried("start: /a/")  # the imports are done: the deadline may start
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdout.write(tried(sys.stdin.read()))
