"""A thread beside the main one that does the jobs of requests one after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from edgeagent.errors import EdgeAgentError, EngineFailed
from edgeagent.worker.channel import Channel
from edgeagent.worker.heartbeat import Pulse
from edgeagent.worker.refusals import queue_full

Job = Callable[[], None]


class JobThread:
    """Does jobs in the order of `put`. A job that raises ends its own request and no other.

    Any thread may call `put`. At most `queue_limit` jobs wait. `activity` begins the message of a job that
    failed unexpectedly: "Tokenizing failed: ...".
    """

    def __init__(
        self, channel: Channel, model_id: str, queue_limit: int, *, name: str, activity: str
    ) -> None:
        self._channel = channel
        self._model_id = model_id
        self._activity = activity
        self.pulse = Pulse()
        self._queue: queue.Queue[tuple[int, Job]] = queue.Queue(queue_limit)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, request_id: int, job: Job) -> bool:
        """Queue a job. False: too many wait, and the request was refused."""
        try:
            self._queue.put_nowait((request_id, job))
            return True
        except queue.Full:
            self._channel.refuse(request_id, queue_full(self._model_id, self._queue.maxsize))
            return False

    def _run(self) -> None:
        while True:
            request_id, job = self._queue.get()
            try:
                with self.pulse.job():
                    job()
            except EdgeAgentError as exc:
                self._channel.refuse(request_id, exc)
            except Exception as exc:  # one bad request must not end the thread
                self._channel.refuse(
                    request_id, EngineFailed(f"{self._activity} failed: {type(exc).__name__}.")
                )
