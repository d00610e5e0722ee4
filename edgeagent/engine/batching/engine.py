"""Continuous batching: each step admits, plans and runs, then draws a token for every sequence.

    arrives -> waiting -> prefill -> decode -> ends: stop | length | tool_calls | cancelled | error
                  ^____________|________|   preempted: an older sequence needs its cells

The engine thread owns everything here. Other threads submit sequences through the worker's inbox, mark
requests as cancelled, and may read `prefilling`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from edgeagent.engine.batching.adapter_turns import AdapterTurns
from edgeagent.engine.batching.admission import Admission
from edgeagent.engine.batching.backlog import Backlog
from edgeagent.engine.batching.chunk_buffer import ChunkBuffer, Emit
from edgeagent.engine.batching.chunk_choice import ChunkChoice, load_of
from edgeagent.engine.batching.inter_token_latency import TokenGaps
from edgeagent.engine.batching.kv_cache import KVCache
from edgeagent.engine.batching.kv_transfer import KVTransfer
from edgeagent.engine.batching.lone_chunk import LoneChunk
from edgeagent.engine.batching.prefix_parking import PrefixParking
from edgeagent.engine.batching.prompts_beside import PromptsBeside
from edgeagent.engine.batching.scheduler import StepPlan, pick_victim, plan_step
from edgeagent.engine.batching.scheduler_views import lanes_of, row_of
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.batching.speculation import Speculation
from edgeagent.engine.batching.step_outcome import StepOutcome, StepRun
from edgeagent.engine.batching.step_probe import StepProbe
from edgeagent.engine.batching.step_runner import Runner, StepAborted
from edgeagent.engine.batching.threads import ThreadChoice, step_size
from edgeagent.engine.batching.wait_estimate import WaitEstimate
from edgeagent.engine.output.output_parser import NOTHING, Pieces
from edgeagent.errors import EdgeAgentError, EngineFailed
from edgeagent.types.answer import PromptFacts
from edgeagent.types.engine_config import EngineConfig, EngineHealth
from edgeagent.types.step_costs import StepCosts
from edgeagent.types.worker_config import ComputeLimits

logger = logging.getLogger(__name__)

# How long a step without tokens waits for prompts that are computed beside it, and requests with it.
WAIT_S = 0.01
# The least that a step is taken to have lasted, by a clock that may stand still.
LEAST_S = 1e-6

Refuse = Callable[[int, Exception], None]


class Engine:
    """Continuous batching over one context. Engine thread only, apart from reading `prefilling`.

    `emit` sends the chunks of a step. `refuse` ends a request that has produced nothing. `forget` is called
    for every request whose last answer has ended, `prepared` when the first answer of a request starts.
    """

    def __init__(
        self,
        config: EngineConfig,
        runner: Runner,
        n_cells: int,
        *,
        emit: Emit,
        refuse: Refuse,
        forget: Callable[[int], None],
        prepared: Callable[[int, PromptFacts], None] = lambda request_id, facts: None,
        clock: Callable[[], float] = time.monotonic,
        speculation: Speculation | None = None,
    ) -> None:
        self._config = config
        self._runner = runner
        n_ids = config.n_seq + (config.n_prefixes if runner.can_trim else 0)
        self._kv = KVCache(n_cells, n_ids, runner)
        is_parking = runner.can_trim and not config.reproducible  # packing reorders cells
        self.parking = PrefixParking(self._kv, runner, is_on=is_parking)
        self.kv_transfer = KVTransfer(self._kv, runner, self.parking)
        self._chunk_buffer = ChunkBuffer(emit, config.stream_interval_ms / 1e3)
        self._refuse = refuse
        self._forget = forget
        self._prepared = prepared
        self._clock = clock
        self.estimate = WaitEstimate(clock)
        self._waiting = Backlog(config, self.estimate)
        self._running: list[Sequence] = []  # oldest admission first
        self._open: dict[int, int] = {}  # answers still to end, by request
        self._admission = Admission(
            config, self._kv, self.parking, self._waiting, self._running,
            can_trim=runner.can_trim, preempt=self._preempt, start=self._start,
        )  # fmt: skip
        self.chunks = ChunkChoice(config, can_part=runner.can_part)
        self._beside = PromptsBeside(runner, self.chunks.predict, clock, config.n_batch)
        self.probe = StepProbe(
            self._kv, runner, config.n_batch, self.chunks.longest_s, n_threads=config.n_threads
        )
        self._threads = ThreadChoice(config.n_threads, adapts=config.adapts_threads)
        self._n_threads, self._chunk_share = config.n_threads, 1.0  # threads of the last step
        self._decoded_s = float("-inf")  # when answers went on
        self._n_admissions = self._n_steps = self._n_preempted = 0
        self._token_gaps = TokenGaps()
        self._turns = AdapterTurns()
        self._speculation = speculation or Speculation(config.is_drafting and runner.can_trim)
        if config.step_costs is not None:
            self._speculation.take_costs(config.step_costs)
        self.outcome = StepOutcome(
            self._kv, runner, self._chunk_buffer, self._speculation, self._end, clock
        )
        self.prefilling: frozenset[Request] = frozenset()
        self._lone_chunk = LoneChunk(clock)

    @property
    def is_idle(self) -> bool:
        return not self._running and not self._waiting

    @property
    def has_only_prompts(self) -> bool:
        """Whether there is work, and no client waits for the next token of an answer."""
        return not self.is_idle and not any(seq.is_answering for seq in self._running)

    def health(self, rss_bytes: int) -> EngineHealth:
        return EngineHealth(
            n_steps=self._n_steps,
            n_running=len(self._running),
            n_waiting=len(self._waiting),
            n_cells_used=self._kv.n_used,
            n_cells=self._kv.n_cells,
            n_idle_prefixes=self._kv.n_idle + self.parking.n_parked,
            n_preempted=self._n_preempted,
            token_gaps=self._token_gaps.histogram,
            rss_bytes=rss_bytes,
            reserved_bytes=self.parking.reserved_bytes + self._runner.reserved_bytes,
            n_threads=self._n_threads,
            n_drafted=self._speculation.n_drafted,
            n_accepted=self._speculation.n_accepted,
        )

    # --- arriving and leaving

    def submit(self, sequences: list[Sequence]) -> None:
        """Queue the answers of one request. When the queue is full, this request is refused, or another one
        of the API key with the most waiting requests."""
        request = sequences[0].request
        refused, error = self._waiting.refused_for(sequences, self._open, self._clock())
        if error is not None:
            self._turn_away(refused, error)
            if refused is sequences:
                return
        self._open[request.request_id] = len(sequences)
        self._waiting.add(sequences)

    def _turn_away(self, sequences: list[Sequence], error: EdgeAgentError) -> None:
        """Refuse a request that has produced nothing."""
        for seq in sequences:
            seq.decoder.close()
        request_id = sequences[0].request.request_id
        self._forget(request_id)
        self._refuse(request_id, error)

    def interrupt(self) -> None:
        """A request has come: let it begin soon. Any thread."""
        if self._lone_chunk.is_worth_ending():
            self._runner.abort()

    def limit(self, limits: ComputeLimits) -> None:
        """Compute within these limits from the next step on."""
        self._threads.limit(limits.n_threads, limits.n_cores_taken)
        self._runner.wait_briefly(limits.n_cores_taken > 0)
        self._chunk_share = limits.chunk_share

    def take_costs(self, costs: StepCosts) -> None:
        """Decide by these times of steps from now on."""
        self.chunks.take(costs)
        self._speculation.take_costs(costs)

    def forget_prefixes(self, scope: str | None) -> None:
        """Drop idle prefixes of one scope, or all."""
        logger.info("prefixes_forgotten n=%s", self.parking.forget(scope))

    def _sweep(self, now: float) -> None:
        """End sequences that were cancelled or have waited too long."""
        for seq in [s for s in self._running if s.request.is_cancelled]:
            self._end(seq, now, finish="cancelled")
        for seq, error in self._waiting.overdue(now):
            self._waiting.remove(seq)
            if error is None:
                self._end(seq, now, finish="cancelled")
            else:
                told, retry_after_s = (error.code, error.message), error.retry_after_s
                self._end(seq, now, finish="error", error=told, retry_after_s=retry_after_s)

    def _end(
        self,
        seq: Sequence,
        now: float,
        *,
        finish: Any,
        pieces: Pieces = NOTHING,
        error: tuple[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """End an answer. Every answer leaves the engine here."""
        seq.decoder.close()
        self._beside.drop(seq)
        if seq.seq_id is not None:
            self._running.remove(seq)
            is_kept = self._runner.can_trim and error is None and not seq.request.is_forgotten
            if is_kept:
                done, scope = seq.tokens[: seq.n_past], seq.request.spec.scope
                self._kv.rest(seq.seq_id, done, scope, seq.request.request_id, seq.adapter)
            else:
                self._kv.release(seq.seq_id)
            seq.seq_id = None
        stop = seq.decoder.stopped_by if finish == "stop" else None
        request_id = seq.request.request_id
        chunk = pieces.chunk(
            seq.index, finish, seq.usage(now), error, stop, seq.decoder.notes, seq.returned_tokens,
            retry_after_s,
        )  # fmt: skip
        self._chunk_buffer.put(request_id, chunk)
        self._open[request_id] -= 1
        if self._open[request_id] == 0:
            del self._open[request_id]
            self._forget(request_id)
            if finish in ("stop", "length", "tool_calls"):
                self.estimate.end(seq.n_prompt, seq.n_generated)

    # --- admission

    def _start(self, seq: Sequence, seq_id: int, n_shared: int, now: float) -> None:
        seq.seq_id = seq_id
        seq.n_past = n_shared
        self._n_admissions += 1
        seq.admission = self._n_admissions
        if seq.started_s is None:
            seq.started_s = now
            # Tokens that an answer must begin with are prefilled with the prompt, and may be cached too.
            seq.n_cached = min(n_shared, seq.n_prompt)
            if seq.index == 0 and n_shared and (facts := seq.request.facts) is not None:
                facts = msgspec.structs.replace(facts, n_cached=seq.n_cached)
                self._prepared(seq.request.request_id, facts)
        self._running.append(seq)
        self.estimate.count(n_shared)

    # --- one step

    def step(self) -> bool:
        """Run one step. False when there was nothing to run."""
        has_taken = self._take_prompts()
        now = self._clock()
        self._sweep(now)
        self._admission.admit(now)
        unfinished = [seq for seq in self._running if seq.decoder.is_drawing]
        self.outcome.resume(unfinished, now)
        plan, ran = self._plan(), None
        if plan.n_tokens and not self._gives_way(plan):
            ran = self._run(plan)
        elif self._beside.n_busy:
            self._beside.wait(WAIT_S)
        # First of all, so that the daemon works on another core meanwhile.
        self._chunk_buffer.flush(len(self._running) + len(self._waiting))
        if ran is not None:
            self._learn(plan, ran)
        return plan.n_tokens > 0 or bool(unfinished) or has_taken or self._beside.n_busy > 0

    def _gives_way(self, plan: StepPlan) -> bool:
        """Whether answers wait a moment for prompts that are nearly complete, so that they go on together."""
        return not plan.prefill and self._beside.is_worth_waiting(self._running, self._decoded_s)

    def _take_prompts(self) -> bool:
        """Go on with the prompts whose chunks ended beside the last steps. False if there were none."""
        chunks = self._beside.ended()
        for chunk in chunks:
            seq, row = chunk.seq, chunk.row
            n = len(row.tokens)
            while not self._kv.make_room(n) and seq.seq_id is not None:
                self._preempt_newest()
            logits = self._beside.fetch(chunk)
            if logits is None or seq.seq_id is None:
                continue
            self._n_steps += 1
            self.chunks.learn(chunk.load, chunk.thread.took_s)
            self.outcome.advance([(seq, n)], [row], logits, self._clock())
            self.estimate.count(n)
            self.parking.tidy(n, 0)
        return bool(chunks)

    @property
    def _budget_s(self) -> float:
        """How much longer prompts, or drafts, may make a step."""
        return self._config.step_budget_ms / 1e3 * self._chunk_share

    def _plan(self) -> StepPlan:
        """The plan of the next step, with free cells for its tokens. May preempt the newest sequence."""
        while True:
            lanes = lanes_of(self._running, self._runner.max_outputs, self._clock())
            lanes = self._turns.lanes_of_turn(lanes)
            lanes = self._beside.start(self._running, lanes, self._threads.first)
            limit = self.chunks.limit(lanes, self._running, self._chunk_share, self._kv.n_used)
            plan = plan_step(lanes, self._config.n_batch, limit)
            if self._kv.make_room(plan.n_tokens + self._beside.n_reserved):
                return plan
            self._preempt_newest()

    def _preempt_newest(self) -> None:
        victim = pick_victim([(seq.admission, seq.admission) for seq in self._running])
        assert victim is not None, "a sequence that is alone fits: checked before it was queued"
        self._preempt(next(seq for seq in self._running if seq.admission == victim))

    def _preempt(self, seq: Sequence, *, keeps_cells: bool = False) -> None:
        """Put a running sequence back into the queue. With `keeps_cells` its cells stay as an idle prefix."""
        assert seq.seq_id is not None
        self._beside.drop(seq)
        self._running.remove(seq)
        if keeps_cells:
            done, scope = seq.tokens[: seq.n_past], seq.request.spec.scope
            self._kv.rest(seq.seq_id, done, scope, adapter=seq.adapter)
        else:
            self._kv.release(seq.seq_id)
        seq.seq_id = None
        seq.n_past = 0
        self._waiting.put_back(seq)
        self._n_preempted += 1
        logger.info("preempted request=%s n_tokens=%s", seq.request.request_id, len(seq.tokens))

    def _run(self, plan: StepPlan) -> StepRun | None:
        """Compute a step and draw its tokens. None if it was aborted or has failed."""
        by_key = {seq.admission: seq for seq in self._running}
        work = [(by_key[key], 1) for key in plan.decode]
        work += [(by_key[key], n) for key, n in plan.prefill]
        drafts = self._speculation.drafts(
            work,
            n_most=min(self._config.n_batch - plan.n_tokens, self._runner.max_outputs - len(work)),
            limit_s=self._budget_s,
            make_room=self._kv.make_room,
        )
        rows = [row_of(seq, n, draft) for (seq, n), draft in zip(work, drafts, strict=True)]
        has_prompts = any(not by_key[key].is_answering for key, _ in plan.prefill)
        n_tokens = sum(len(row.tokens) for row in rows)
        size = n_tokens if n_tokens == len(plan.decode) else step_size(n_tokens)
        n_beside = self._beside.n_busy
        load = load_of(len(plan.decode), rows)._replace(n_used=self._kv.n_used, n_beside=n_beside)
        if n_beside:
            self._n_threads = max(1, self._threads.granted - n_beside)
        elif not plan.prefill:
            self._n_threads = self._threads.pick(
                size, lambda n: self.chunks.expect(load._replace(n_threads=n), n_tokens)
            )
        else:  # limited by arithmetic, which gains from every thread
            usual = self._threads.usual(len(work))
            self._n_threads = self._threads.granted if has_prompts else usual
        adapter = work[0][0].adapter  # of all of them
        self._runner.set_threads(self._n_threads)
        self._runner.arm()
        self.prefilling = frozenset(by_key[key].request for key, _ in plan.prefill)
        load = load._replace(n_threads=self._n_threads)
        has_answers = any(by_key[key].is_answering for key, _ in plan.prefill) or plan.decode
        if self._runner.is_beside and not n_beside and not has_answers:
            self._lone_chunk.begin(self.chunks.predict(load))
        started = self._clock()
        try:
            self._runner.use_adapter(adapter)
            logits = self._runner.run(rows, self._kv.n_used)
        except StepAborted:
            self.outcome.undo(work)
            return None
        except EngineFailed as exc:
            for seq, _ in work:
                self._end(seq, self._clock(), finish="error", error=(exc.code, exc.message))
            return None
        finally:
            self.prefilling = frozenset()
            self._lone_chunk.end()
        took = max(self._clock() - started, LEAST_S)
        self._n_steps += 1
        self._turns.took(adapter)
        now = self._clock()
        self._decoded_s = now if plan.decode else self._decoded_s
        n_accepted = self.outcome.advance(work, rows, logits, now)
        return StepRun(load, n_tokens, n_accepted, size, has_prompts, took)

    def _learn(self, plan: StepPlan, ran: StepRun) -> None:
        """Count what a step has done, learn from its time, and tidy the cache."""
        n, n_decode, n_walking = ran.n_tokens, len(plan.decode), self._runner.n_walking
        load = ran.load if n_walking else ran.load._replace(n_used=0)
        if not plan.prefill and not load.n_beside:
            self._threads.observe(
                ran.size, self._n_threads, ran.took_s, lambda: self.chunks.expect(load, n)
            )
            self._speculation.costs.observe(n, ran.took_s)
        # A few forced or drafted tokens say nothing about the speed of prefill.
        if ran.has_prompts or n == n_decode:
            self.chunks.learn(load, ran.took_s)
        self._token_gaps.end_step(n_decode, self._clock())
        self.estimate.count(plan.n_tokens + ran.n_accepted)
        self.parking.tidy(min(n, n_walking), min(n_decode, n_walking))
