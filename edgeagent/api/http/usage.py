"""Token counts and times of an answer in OpenAI's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edgeagent.serving.answer import Answer, Decision
from edgeagent.types.answer import CallText, SchemaNote
from edgeagent.types.intents import Confidence


def usage_of(answer: Answer) -> dict[str, Any]:
    """`usage`: each prompt counted once, the tokens of all answers summed."""
    n = answer.spec.n
    firsts = [usage for index, usage in answer.usages.items() if index % n == 0]
    n_prompt = sum(usage.n_prompt for usage in firsts)
    n_generated = sum(usage.n_generated for usage in answer.usages.values())
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
        "prompt_tokens_details": {
            "cached_tokens": sum(usage.n_cached for usage in firsts),
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": sum(usage.n_reasoning for usage in answer.usages.values()),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def tokens_of(answer: Answer) -> int:
    """Tokens read and made, for the key's bound. An answer that was broken off has no counts: each
    piece that came of it was a token at least."""
    n_broken_off = sum(n for index, n in answer.n_pieces.items() if index not in answer.usages)
    return int(usage_of(answer)["total_tokens"]) + n_broken_off


def timings_of(answer: Answer) -> dict[str, Any]:
    """`timings`: of the answer that took longest."""
    usage = max(answer.usages.values(), key=lambda usage: usage.total_ms)
    decode_s = (usage.total_ms - usage.ttft_ms) / 1e3
    rate = (usage.n_generated - 1) / decode_s if usage.n_generated > 1 and decode_s > 0 else None
    return {
        "queue_ms": round(usage.queue_ms, 3),
        "ttft_ms": round(usage.ttft_ms, 3),
        "total_ms": round(usage.total_ms, 3),
        "tokens_per_second": round(rate, 3) if rate is not None else None,
    }


def own_of(answer: Answer) -> dict[str, Any]:
    """`edgeagent`: how sure an assistant model was that was asked, the call that the text tells of, what of
    the request was not done as it says, what of a schema the answer was not held to, and the route; nothing
    where there is none of it."""
    confidence = answer.confidence or answer.decision.confidence
    own = own_body(answer.decision, confidence, answer.told, answer.notes, answer.schema_notes)
    return {"edgeagent": own} if own else {}


def own_body(
    decision: Decision,
    confidence: Confidence | None,
    told: CallText | None = None,
    notes: Sequence[str] = (),
    schema_notes: Iterable[SchemaNote] = (),
) -> dict[str, Any]:
    """The extension with what edgeagent knows of an answer; empty where it has nothing to say."""
    own: dict[str, Any] = {}
    if told is not None:
        own["call"] = {"name": told.name, "arguments": told.arguments}
    if confidence is not None:
        own["confidence"] = {
            "intent": confidence.intent,
            "probability": round(confidence.probability, 6),
            "margin": round(confidence.margin, 6),
            "domain": confidence.domain,
            "abstained": confidence.is_abstained,
        }
    if notes:
        own["notes"] = list(notes)
    if shown := [
        {"tool": n.tool, "path": n.path, "keyword": n.keyword, "note": n.note} for n in schema_notes
    ]:
        own["schema_notes"] = shown
    return {"route": decision.reason} | own if own else {}


def finish_reason(finish: str) -> str:
    """Ours in OpenAI's words: what was cancelled from outside simply stopped."""
    return finish if finish in ("stop", "length", "tool_calls") else "stop"
