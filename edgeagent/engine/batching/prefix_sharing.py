"""Which cached prefix a waiting sequence can share, and whether a longer one is being computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edgeagent.engine.batching.kv_cache import KVCache, Match, common_prefix
from edgeagent.engine.batching.scheduler import waits_for_leader
from edgeagent.engine.batching.sequence import Sequence


class SharedPrefix(NamedTuple):
    """The longest prefix that can be shared now. `is_idle`: it belongs to an ended sequence. `must_wait`:
    a running sequence computes a longer one, which is worth waiting for."""

    match: Match
    is_idle: bool = False
    must_wait: bool = False


def find_shared_prefix(
    seq: Sequence, running: Iterable[Sequence], kv: KVCache, *, can_trim: bool
) -> SharedPrefix:
    """What `seq` can share with idle and running sequences of its scope and its LoRA adapter.

    Without `can_trim` the model's state cannot be cut to a prefix, and nothing is shared.
    """
    nothing = Match(None, 0)
    if seq.is_scored:  # the logits of cached tokens are gone; those of one answer serve all answers
        return SharedPrefix(nothing, must_wait=any(other.scores is seq.scores for other in running))
    if not can_trim:
        return SharedPrefix(nothing)
    bound = len(seq.tokens) - 1  # the last token must be computed, for its logits
    scope = seq.request.spec.scope
    idle = kv.best_idle(seq.tokens, scope, seq.adapter)
    best, is_idle = Match(idle.seq_id, min(idle.n, bound)), True
    later, leader_past = 0, 0
    for other in running:
        if other.request.spec.scope != scope or other.request.is_forgotten:
            continue
        if other.adapter != seq.adapter:
            continue
        common = min(common_prefix(other.tokens, seq.tokens), bound)
        if min(common, other.n_past) > best.n:
            best, is_idle = Match(other.seq_id, min(common, other.n_past)), False
        if common > later and not other.is_decoding and not other.is_scored:
            later, leader_past = common, other.n_past
    return SharedPrefix(best, is_idle, waits_for_leader(best.n, later, leader_past))
