"""The three standard descriptors, where the program that started us has closed some.

The next file that is opened takes the number of a closed one: what libraries print would go into the
database, and a worker's socket would be replaced when its standard output is set.
"""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Open those of the descriptors 0 to 2 that are closed as /dev/null. Call before any file is opened."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    # Python has None for those that it found closed.
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            stream = open(descriptor, mode, errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
