"""Compiles the grammars of answers, beside intake and the engine, and caches them.

A schema can be written so that compiling it never ends, and native code cannot be interrupted. A schema
that is not simple is therefore first compiled in a process of its own, which is ended at a deadline. Such
schemas have a thread of their own, so that simple ones do not wait for them. Refusals are cached, too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from edgeagent.engine.batching.fair_queue import FairQueue
from edgeagent.engine.batching.sequence import Request
from edgeagent.engine.process import helper_process
from edgeagent.engine.structured.constraint import Grammar
from edgeagent.engine.structured.grammar import (
    PARAM,
    Source,
    Vocabulary,
    compile_source,
    json_grammar,
    tokenizer_of,
    tried,
)
from edgeagent.engine.structured.output_spec import OutputSpec
from edgeagent.engine.structured.schema_bounds import BoundedSchema
from edgeagent.errors import (
    BadRequest,
    EdgeAgentError,
    EngineFailed,
    InvalidParameter,
    QueueFull,
)
from edgeagent.types.generation import GenerateSpec
from edgeagent.worker.heartbeat import Pulse

logger = logging.getLogger(__name__)

MAX_KEPT = 16
# The lexer of a grammar is shared by its answers and learns states, up to a bound: compile it anew
# before that.
MAX_USES = 256
# The start of an interpreter is not the schema's fault.
TRIAL_START_S = 10.0
# How often the thread says that it waits.
BEAT_S = 0.5


class _Lane:
    """One thread with a line for each key. `close()` may be called twice."""

    def __init__(
        self, name: str, queue_limit: int, handle: Callable[[Request, Pulse], None]
    ) -> None:
        self.pulse = Pulse()
        self._name = name
        self._handle = handle
        self._queue: FairQueue[Request] = FairQueue(max(1, queue_limit))
        self._thread: threading.Thread | None = None  # from the first request on

    def put(self, request: Request) -> tuple[bool, Request | None]:
        """Whether the request has a place, and which other one lost its own to it. One thread calls it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        return self._queue.put(request.spec.scope, request)

    def _loop(self) -> None:
        while (request := self._queue.get()) is not None:
            with self.pulse.job():
                self._handle(request, self.pulse)

    def close(self) -> None:
        if self._thread is not None:
            self._queue.close()
            self._thread.join(timeout=5)


class GrammarCompiler:
    """Two threads that compile forms for one vocabulary: one for what is plainly harmless, one for the
    rest, which is tried first. `close()` may be called twice.

    A request comes by `put` and goes on by `ready`, with `request.grammar` set, or by `refuse`. Requests
    of each key come in turn, so a slow schema holds up slow ones of other keys by its own time at most,
    and plain ones not at all. `too_many` makes the refusal of a request that has no place, or lost it to
    another key's.
    """

    def __init__(
        self,
        vocabulary: Callable[[], Vocabulary],
        timeout_s: float,
        queue_limit: int,
        *,
        ready: Callable[[Request], None],
        refuse: Callable[[int, Exception], None],
        too_many: Callable[[GenerateSpec], QueueFull],
    ) -> None:
        self._vocabulary = vocabulary
        self._timeout_s = timeout_s
        self._ready = ready
        self._refuse = refuse
        self._too_many = too_many
        self._tokenizer: Any = None
        self._lock = threading.Lock()
        self._tokenizer_lock = threading.Lock()
        self._kept: OrderedDict[bytes, Grammar | EdgeAgentError] = OrderedDict()
        self._uses: dict[bytes, int] = {}
        self._plain = _Lane("grammars", queue_limit, self._serve_plain)
        self._intricate = _Lane("grammar-trials", queue_limit, self._serve_intricate)
        self.pulses = (self._plain.pulse, self._intricate.pulse)

    def find(self, output: OutputSpec) -> Grammar | None:
        """What is compiled already. Raises: the error that such a form was refused with."""
        key = output.key()
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            if isinstance(found, EdgeAgentError):
                raise found
            self._uses[key] = self._uses.get(key, 0) + 1
            if found.is_spoiled or self._uses[key] >= MAX_USES:
                del self._kept[key], self._uses[key]
            return None if found.is_spoiled else found

    def forget(self) -> None:
        """Drop what was compiled: schemas are content too."""
        with self._lock:
            self._kept.clear()
            self._uses.clear()

    def put(self, request: Request) -> bool:
        """Have its form compiled. False when too many wait for that."""
        return self._enter(self._plain, request)

    def _enter(self, lane: _Lane, request: Request) -> bool:
        has_place, lost = lane.put(request)
        if lost is not None:
            self._refuse(lost.request_id, self._too_many(lost.spec))
        return has_place

    def _serve_plain(self, request: Request, pulse: Pulse) -> None:
        """Compile what needs no trial, and hand on what does."""

        def compiled(output: OutputSpec) -> Grammar | None:
            source = self._source(output)
            return self._compile(output, source, pulse) if source.is_plain else None

        is_served = self._serve(request, compiled)
        if not is_served and not self._enter(self._intricate, request):
            self._refuse(request.request_id, self._too_many(request.spec))

    def _serve_intricate(self, request: Request, pulse: Pulse) -> None:
        self._serve(request, lambda output: self._compile(output, self._source(output), pulse))

    def _serve(self, request: Request, compiled: Callable[[OutputSpec], Grammar | None]) -> bool:
        """Let the request go on with what was kept or is compiled now, or refuse it. False: it is neither."""
        output = request.output
        assert output is not None
        if request.is_cancelled:  # nobody waits for it
            self._refuse(request.request_id, EngineFailed("The request was cancelled."))
            return True
        try:
            request.grammar = self.find(output) or compiled(output)
        except EdgeAgentError as exc:
            self._refuse(request.request_id, exc)
        # Native code that panics raises what is no Exception.
        except BaseException as exc:
            logger.exception("grammar_failed")
            self._refuse(
                request.request_id,
                EngineFailed(f"Compiling the schema failed: {type(exc).__name__}."),
            )
        else:
            if request.grammar is None:
                return False
            self._ready(request)
        return True

    def _source(self, output: OutputSpec) -> Source:
        try:
            return output.source()
        except EdgeAgentError as exc:
            self._keep(output.key(), exc)
            raise

    def _compile(self, output: OutputSpec, source: Source, pulse: Pulse) -> Grammar:
        key = output.key()
        try:
            made = self._compiled(output, source, pulse)
        except EdgeAgentError as exc:
            self._keep(key, exc)
            raise
        self._keep(key, made)
        kind = output.family.name if output.family else output.form and output.form.kind
        logger.debug("grammar_compiled kind=%s took_ms=%.1f", kind, made.compile_ms)
        return made

    def _compiled(self, output: OutputSpec, source: Source, pulse: Pulse) -> Grammar:
        """What need not hold wholly is enforced in part, where llguidance refuses the whole."""
        try:
            return self._made(source, pulse)
        except BadRequest as exc:
            if not source.is_loose:
                raise
            logger.debug("grammar_weakened reason=%s", exc.code)
        return self._made(
            output.source(lambda found: complaint_of(found, self._timeout_s, pulse.beat)), pulse
        )

    def _made(self, source: Source, pulse: Pulse) -> Grammar:
        if not source.is_plain:
            try_out(source, self._timeout_s, pulse.beat)
        with self._tokenizer_lock:
            if self._tokenizer is None:
                self._tokenizer = tokenizer_of(self._vocabulary())
        return compile_source(source, self._tokenizer)

    def _keep(self, key: bytes, made: Grammar | EdgeAgentError) -> None:
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MAX_KEPT:
                oldest, _ = self._kept.popitem(last=False)
                self._uses.pop(oldest, None)

    def close(self) -> None:
        self._plain.close()
        self._intricate.close()


class _Watchdog(threading.Thread):
    """Kills a process at its deadline unless cancelled before, and says `beat` until then."""

    def __init__(
        self, timeout_s: float, kill: Callable[[], None], beat: Callable[[], None]
    ) -> None:
        super().__init__(name="trial-watchdog", daemon=True)
        self._deadline = time.monotonic() + timeout_s
        self._kill = kill
        self._beat = beat
        self._cancelled = threading.Event()

    def run(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            self._beat()
            if self._cancelled.wait(min(left, BEAT_S)):
                return
        self._kill()

    def cancel(self) -> None:
        self._cancelled.set()


def complaint_of(
    found: BoundedSchema, timeout_s: float, beat: Callable[[], None] = lambda: None
) -> str:
    """What is wrong with the masks of a schema; empty when nothing is. What may take long is compiled in
    a process of its own; `beat` is called while that runs."""
    grammar = json_grammar(found)
    if not found.is_plain:
        try:
            try_out(Source(grammar, found), timeout_s, beat)
        except BadRequest as exc:
            return exc.message
    return tried(grammar)


def try_out(source: Source, timeout_s: float, beat: Callable[[], None] = lambda: None) -> None:
    """Compile in a process of its own; `beat` is called while that runs. Raises: InvalidParameter when it
    takes too long or fails."""
    with helper_process.start("trial") as process:
        watchdog = _Watchdog(TRIAL_START_S, process.kill, beat)
        watchdog.start()
        try:
            is_started = process.stdout.readline() == b"ready\n"
            watchdog.cancel()
            watchdog = _Watchdog(timeout_s, process.kill, beat)
            watchdog.start()
            process.stdin.write(source.trial().encode("utf-8", "surrogatepass"))
            process.stdin.close()
            said = process.stdout.read().decode("utf-8", "replace")
            status = process.wait()
        except BrokenPipeError:
            is_started, said, status = True, "", process.wait()
        finally:
            watchdog.cancel()
            process.kill()
    if not is_started:
        raise EngineFailed("The process that tries schemas did not start: try again.")
    if status != 0:
        raise InvalidParameter(
            f"Compiling the form asked for takes more than {timeout_s:g} s or too much memory: ask for a "
            "simpler one, with fewer patterns that must hold together.",
            param="tools" if source.tools else PARAM,
        )
    if said:
        raise source.complaint(said)
