"""The input history of `edgeagent chat`: kept in memory during a chat, and never on disk.

Version 0.1.0 wrote the lines that users typed into a file of the state directory, in plain text. The file
is deleted when the daemon starts, when a chat begins, and by every erasure.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

NAME = "chat_history"


def forget_history(state_dir: Path) -> None:
    """Delete the file of version 0.1.0; it is overwritten first, where the file system allows that."""
    path = state_dir / NAME
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with path.open("r+b") as file:
                file.write(b"\0" * path.stat().st_size)
            path.unlink()
