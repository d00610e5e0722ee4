"""A worker process that is started before anything else, for the default model.

The imports of a worker take as long as those that the daemon needs to read its settings. Both run at once on
two cores, so that a worker is ready when the daemon knows which model to load. This module imports little.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeagent.worker.process import WaitingProcess, begin

# The kind of worker that most default models need: `engine.client.EngineClient`, whose import takes long. For
# another kind `Preload` starts another process.
MODULE = "edgeagent.engine.worker"
WAITS_LONG = True


@contextmanager
def waiting() -> Iterator[WaitingProcess | None]:
    """A worker process that `Preload` may take; None where it could not be started. The process ends with
    this context, taken or not."""
    try:
        process = begin(MODULE, waits_long=WAITS_LONG)
    except OSError:  # the daemon meets the same error and reports it
        process = None
    try:
        yield process
    finally:
        if process is not None:
            process.close()
