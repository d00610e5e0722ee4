"""A process that compiles one grammar to see whether it can: `python -m edgeagent.engine.trial`.

It says "ready", reads a grammar from standard input to its end, and writes what is wrong with it, or
nothing. It has little memory, and its parent ends it when the deadline passes.
"""

from __future__ import annotations

import sys

from edgeagent import sandbox
from edgeagent.engine.constrain import tried

ADDRESS_SPACE_BYTES = 512 << 20


def main() -> None:
    sandbox.enter(oom_score_adj=900, address_space_bytes=ADDRESS_SPACE_BYTES)
    tried("start: /a/")  # imports are done: the deadline may begin
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdout.write(tried(sys.stdin.read()))


if __name__ == "__main__":
    main()
