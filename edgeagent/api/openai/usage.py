"""Token counts, times and finish reasons of an answer in OpenAI's format."""

from __future__ import annotations

from typing import Any

from edgeagent.serving.answer import Answer


def usage_of(answer: Answer) -> dict[str, Any]:
    """`usage`: each prompt counted once, the tokens of all answers summed."""
    totals = answer.totals
    return {
        "prompt_tokens": totals.n_prompt,
        "completion_tokens": totals.n_generated,
        "total_tokens": totals.n_prompt + totals.n_generated,
        "prompt_tokens_details": {"cached_tokens": totals.n_cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": totals.n_reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": totals.n_predicted,
            "rejected_prediction_tokens": totals.n_mispredicted,
        },
    }


def timings_of(answer: Answer) -> dict[str, Any]:
    """`timings`, of the answer that took longest."""
    usage = max(answer.usages.values(), key=lambda usage: usage.total_ms)
    decode_s = (usage.total_ms - usage.ttft_ms) / 1e3
    rate = (usage.n_generated - 1) / decode_s if usage.n_generated > 1 and decode_s > 0 else None
    return {
        "queue_ms": round(usage.queue_ms, 3),
        "ttft_ms": round(usage.ttft_ms, 3),
        "total_ms": round(usage.total_ms, 3),
        "tokens_per_second": round(rate, 3) if rate is not None else None,
    }


def finish_reason(finish: str) -> str:
    """The finish reason as OpenAI names it; a cancelled answer has "stop"."""
    return finish if finish in ("stop", "length", "tool_calls") else "stop"
