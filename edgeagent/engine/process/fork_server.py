"""The process that forks a worker's helpers: `python -m edgeagent.engine.process.fork_server FD WORKER_PID`.

It has one thread, has imported what a template needs, and is confined, except that it may fork and end
children. A helper therefore starts in milliseconds, shares memory with this process, and confines itself
further before it reads anything. Requests have a fixed size (`helpers.REQUEST`).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from typing import NoReturn

from edgeagent.engine.process.helper_process import ANSWER, AWAIT, KINDS, REQUEST, START
from edgeagent.engine.prompt import template_process
from edgeagent.worker import confinement
from edgeagent.worker.process_title import ProcessTitle

logger = logging.getLogger(__name__)

AWAIT_S = 1.0
# Killed before the worker when memory runs out; a confined process cannot raise it for its children.
OOM_SCORE_ADJ = 600


class Server:
    """The children of one worker. `serve` returns when the worker has gone."""

    def __init__(self, sock: socket.socket) -> None:
        self._title = ProcessTitle()
        self._socket = sock
        self._children: set[int] = set()

    def serve(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._socket, REQUEST.size, 2)
            if len(data) != REQUEST.size:
                return
            what, value = REQUEST.unpack(data)
            if what == START:
                self._start(value, descriptors)
            else:
                self._answer(self._finish(value, how=what))

    def _start(self, kind: int, descriptors: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            self._socket.close()
            self._title.replace("engine.process.fork_server", f"engine.{KINDS[kind]}")
            _become(kind, descriptors)
        self._children.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        try:
            statm = [os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)]
        except OSError:
            statm = []
        self._answer(pid, statm)
        for descriptor in statm:
            os.close(descriptor)

    def _finish(self, pid: int, how: int) -> int:
        """The exit status of a child, which is killed if it does not end; -1 for another process."""
        if pid not in self._children:
            return -1
        self._children.discard(pid)
        deadline = time.monotonic() + (AWAIT_S if how == AWAIT else 0.0)
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= deadline:
                break
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _answer(self, value: int, descriptors: list[int] | None = None) -> None:
        socket.send_fds(self._socket, [ANSWER.pack(value)], descriptors or [])


def _become(kind: int, descriptors: list[int]) -> NoReturn:
    """Turn this forked child into a helper."""
    status = 1
    try:
        for standard, descriptor in enumerate(descriptors):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        if KINDS[kind] == "template":
            template_process.main(os.getppid())
        else:
            from edgeagent.engine.structured import grammar_trial

            grammar_trial.main(os.getppid())
        sys.stdout.flush()
        status = 0
    except BaseException:
        logger.exception("helper_failed kind=%s", KINDS[kind])
    finally:
        os._exit(status)


def main(argv: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(format="%(levelname)s helper %(name)s %(message)s")
    template_process.warm_up()
    sock = socket.socket(fileno=int(argv[1]))
    # Loaded modules are shared with all children as long as none of them writes to that memory.
    gc.collect()
    gc.freeze()
    # /proc is readable for the memory use of children. Landlock still protects other processes.
    server = Server(sock)
    confinement.enter(
        read=["/proc"], may_fork=True, oom_score_adj=OOM_SCORE_ADJ, parent=int(argv[2])
    )
    with contextlib.suppress(OSError):  # the worker has gone
        server.serve()


if __name__ == "__main__":
    main(sys.argv)
