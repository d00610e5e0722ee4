"""A worker process that is started before anything else, for the default model.

The imports of a worker take as long as those that the daemon needs to read its settings. Done side by side on
two cores, the worker waits for its model, and not the model for a worker. This module imports little.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from edgeagent.worker.process import WaitingProcess, begin

logger = logging.getLogger(__name__)

# The kind of worker that most default models need: `engine.client.EngineClient`, whose import takes long. For
# another kind `Preload` starts another process.
MODULE = "edgeagent.engine.worker"
WAITS_LONG = True


@contextmanager
def waiting() -> Iterator[WaitingProcess | None]:
    """A worker process that `Preload` may take. It is ended with this context, also if it was not taken. None
    where it could not be started."""
    try:
        process = begin(MODULE, waits_long=WAITS_LONG)
    except OSError as exc:  # the daemon meets the same error and reports it
        logger.debug("early_worker_skipped %s", exc)
        process = None
    try:
        yield process
    finally:
        if process is not None:
            process.close()
