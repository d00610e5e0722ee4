"""Speculative decoding: tokens that are likely to follow are computed in the same step as the last one.

Each answer draws its own token from the logits at every position, exactly as it would have step by step, and
goes on while the tokens drawn are the drafted ones. So nothing but the time depends on the drafts: grammar,
penalties, random numbers and log-probabilities see the tokens of the answer only, one after another. The
cells of the other drafted tokens are dropped.

Drafts come from the prompt and the answer itself (`prompt_lookup`). How many are computed is decided in each
step (`draft_lengths`), from what steps cost (`verify_costs`) and how often drafts were right (`acceptance`).
A model of its own for drafts would be one more `Drafter`.
Source: Leviathan et al. 2023, arXiv:2211.17192.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeagent.engine.batching.acceptance import GUESSES, Acceptance, chances
from edgeagent.engine.batching.draft_lengths import choose_lengths, may_gain
from edgeagent.engine.batching.prompt_lookup import NO_TOKENS, Draft, find_draft
from edgeagent.engine.batching.sequence import Sequence
from edgeagent.engine.batching.verify_costs import VerifyCosts
from edgeagent.types.step_costs import MOST_WITH_LOGITS, StepCosts

# Finds at most so many tokens that may follow those of an answer.
Drafter = Callable[[Sequence, int], Draft | None]

LONGEST_DRAFT = 32
# Of all answers together; as `acceptance.FADING`.
SLOW_FADING = 0.995


def look_up(seq: Sequence, n_max: int) -> Draft | None:
    """What may follow an answer, by its prompt, what it says and what its client expects."""
    if not seq.prediction and not seq.pairs.repeats(seq.tokens):
        return None
    return find_draft(seq.tokens, n_max, seq.prediction)


@dataclass
class Speculation:
    """What is drafted for the answers of one engine. Engine thread only.

    `n_drafted` tokens were computed before they were drawn, and `n_accepted` of them were drawn then.
    """

    is_on: bool
    drafter: Drafter = look_up
    costs: VerifyCosts = field(default_factory=VerifyCosts)
    n_drafted: int = 0
    n_accepted: int = 0
    _overall: Acceptance = field(default_factory=lambda: Acceptance(SLOW_FADING))
    # The drafts of the answers of this step, computed or not, by admission number.
    _found: dict[int, Draft] = field(default_factory=dict)

    def take_costs(self, costs: StepCosts) -> None:
        """Begin with the times of steps that were measured while nothing else ran, as far as each of their
        tokens had logits."""
        self.costs.take({n: s for n, s in costs.step_s.items() if n <= MOST_WITH_LOGITS})

    def drafts(
        self,
        work: list[tuple[Sequence, int]],
        *,
        n_most: int,
        limit_s: float,
        make_room: Callable[[int], bool],
    ) -> list[array[int]]:
        """What is computed behind the tokens of a step: for each of its sequences, which take the next n
        pending tokens, the drafted tokens. At most `n_most` in all, which take `limit_s` at most; none if
        there are not cells for all tokens of the step (`make_room`)."""
        self._found.clear()
        nothing = [NO_TOKENS] * len(work)
        if not self.is_on or n_most < 1 or not all(seq.is_answering for seq, _ in work):
            return nothing
        n_base = sum(n for _, n in work)
        longest = min(LONGEST_DRAFT, n_most)
        if self.costs.is_known and not may_gain(n_base, self.costs.seconds, longest * len(work)):
            return nothing  # looking for drafts takes time, too
        for seq, n in work:
            n_room = min(longest, seq.decoder.max_new - seq.n_generated - 1)
            if n == seq.n_pending and n_room > 0 and _may_be_drafted(seq):
                draft = self.drafter(seq, n_room)
                if draft is not None:
                    self._found[seq.admission] = draft
        # While every step has drafts, nothing tells what one without them costs: it is run now and then.
        is_decode = n_base == len(work)
        if (
            not self._found
            or not self.costs.is_known
            or (is_decode and not self.costs.is_fresh(n_base))
        ):
            return nothing
        # Answers after many that copied are no more likely to copy; after many that did not, less.
        prior = tuple(map(min, GUESSES, self._overall.rates()))
        expected = [
            chances(seq.acceptance.rates(prior), draft.n_matched, len(draft.tokens))
            if (draft := self._found.get(seq.admission)) is not None
            else ()
            for seq, _ in work
        ]
        lengths = choose_lengths(
            expected, n_base, self.costs.seconds, n_most=n_most, limit_s=limit_s
        )
        if not any(lengths) or not make_room(n_base + sum(lengths)):
            return nothing
        return [
            self._found[seq.admission].tokens[:length] if length else NO_TOKENS
            for (seq, _), length in zip(work, lengths, strict=True)
        ]

    def verified(self, seq: Sequence, n_drafted: int, n_accepted: int) -> None:
        """Learn from a draw: `n_accepted` of `n_drafted` tokens were drawn, and now `seq` has tokens that are
        not in the cache, if it goes on."""
        self.n_drafted += n_drafted
        self.n_accepted += n_accepted
        draft = self._found.get(seq.admission)
        if draft is None:
            return
        if draft.is_predicted:
            seq.n_predicted += n_accepted
            seq.n_mispredicted += n_drafted - n_accepted
        for i in range(n_accepted):
            self._add(seq, draft.n_matched + i, is_hit=True)
        if n_accepted < len(draft.tokens) and seq.n_pending:
            is_hit = seq.tokens[seq.n_past] == draft.tokens[n_accepted]
            self._add(seq, draft.n_matched + n_accepted, is_hit=is_hit)

    def _add(self, seq: Sequence, n_matched: int, *, is_hit: bool) -> None:
        seq.acceptance.add(n_matched, is_hit=is_hit)
        self._overall.add(n_matched, is_hit=is_hit)


def _may_be_drafted(seq: Sequence) -> bool:
    """A `seed` asks for the same text again: how many tokens a step computes changes the last bits of the
    logits, and how many that are depends on time."""
    return not seq.is_scored and seq.request.spec.sampling.seed is None


def agreement(tokens: array[int], n_past: int, draft: array[int], n_done: int) -> int:
    """How many tokens of an answer from `n_past` on are those drafted from `n_done` on."""
    n = 0
    limit = min(len(tokens) - n_past, len(draft) - n_done)
    while n < limit and tokens[n_past + n] == draft[n_done + n]:
        n += 1
    return n
