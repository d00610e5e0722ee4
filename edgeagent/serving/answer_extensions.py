"""The `edgeagent` object of an answer: what the APIs of others have no place for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edgeagent.routing.decision import Decision
from edgeagent.serving.answer import Answer
from edgeagent.types.answer import CallText, SchemaNote
from edgeagent.types.intents import Confidence


def answer_extension(answer: Answer) -> dict[str, Any]:
    """The object of an answer under its key `edgeagent`; empty where there is nothing to tell."""
    own = extension(
        answer.decision,
        answer.confidence or answer.decision.confidence,
        answer.call_text,
        answer.notes,
        answer.schema_notes,
    )
    return {"edgeagent": own} if own else {}


def extension(
    decision: Decision,
    confidence: Confidence | None,
    call: CallText | None = None,
    notes: Sequence[str] = (),
    schema_notes: Iterable[SchemaNote] = (),
) -> dict[str, Any]:
    """The object itself: the route, how sure an assistant model was, the call that the text describes, what
    was not done as requested, and what of a schema was not enforced. Empty without any but the route, unless
    the client named a route or asked for its trace."""
    own: dict[str, Any] = {}
    if call is not None:
        own["call"] = {"name": call.name, "arguments": call.arguments}
    if confidence is not None:
        own["confidence"] = {
            "intent": confidence.intent,
            "probability": round(confidence.probability, 6),
            "margin": round(confidence.margin, 6),
            "domain": confidence.domain,
            "abstained": confidence.is_abstained,
        }
    if decision.shows_trace:
        own["routing"] = decision.told()
    if notes:
        own["notes"] = list(notes)
    if shown := [
        {"tool": n.tool, "path": n.path, "keyword": n.keyword, "note": n.note} for n in schema_notes
    ]:
        own["schema_notes"] = shown
    is_routed = decision.route is not None
    return {"route": decision.reason} | own if own or is_routed else {}
