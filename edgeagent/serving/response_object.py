"""The response object before its answer, and the check of the calls that come before it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgeagent.errors import InvalidParameter
from edgeagent.routing.decision import Decision
from edgeagent.routing.upstreams.outgoing_request import given
from edgeagent.serving.items import Body, is_object
from edgeagent.serving.turn_privacy import stored_metadata
from edgeagent.types.ids import new_id
from edgeagent.types.sampling import Sampling

if TYPE_CHECKING:
    from edgeagent.serving.stored_turn import TurnInput


def response_object(
    turn: TurnInput,
    metadata: Mapping[str, str],
    decision: Decision,
    sampling: Sampling,
    is_stored: bool,
) -> Body:
    """The response object before anything has been answered."""
    return turn.shown | {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued" if turn.is_background else "in_progress",
        "background": turn.is_background,
        "error": None,
        "incomplete_details": None,
        "model": decision.name,
        "output": [],
        "presence_penalty": given(sampling.presence_penalty),
        "frequency_penalty": given(sampling.frequency_penalty),
        "service_tier": "default",
        "store": is_stored,
        "temperature": given(sampling.temperature),
        "top_p": given(sampling.top_p),
        "usage": None,
        "metadata": stored_metadata(metadata, decision),
    }


def check_calls(items: Sequence[Body]) -> None:
    """Raises: InvalidParameter for a result without its call, or a call with incomplete arguments."""
    kinds = ("function_call", "custom_tool_call")
    called = {item["call_id"] for item in items if item["type"] in kinds}
    for item in items:
        if item["type"] == "function_call" and not is_object(item["arguments"]):
            raise InvalidParameter(
                f"The call {item['call_id'][:80]!r} of an earlier response was cut off within its arguments: "
                "continue what came before it, and raise max_output_tokens.",
                param="previous_response_id",
            )
        if item["type"].endswith("_call_output") and item["call_id"] not in called:
            raise InvalidParameter(
                f"No call with call_id {item['call_id'][:80]!r} stands before its output: send "
                "the call too, or continue the response that made it.",
                param="input",
            )
