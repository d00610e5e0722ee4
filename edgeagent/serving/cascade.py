"""Who answers a chat that names no model: the small assistant where it is sure, else its larger model.

1. the client named a model                            that one answers, whatever it is
2. the default is no assistant model                   it answers
3. no larger model is installed, or it is not allowed  the assistant answers, or abstains
4. the rules of the client's tools say what to call   the assistant answers
5. the assistant does not do what is asked for         the larger one answers ("escalated")
6. it abstains                                         the larger one answers ("escalated")
7. else                                                the assistant answers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from edgeagent.errors import ContextLengthExceeded, InvalidParameter
from edgeagent.routing.intents import AssistantPreferences, UnsuitedRequest
from edgeagent.serving.answer import Agent, Decision, RequestOrigin
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Confidence

ESCALATED = "escalated"

Make = Callable[[Decision], GenerateSpec]


async def settle(
    agent: Agent,
    origin: RequestOrigin,
    model: str | None,
    make: Make,
    metadata: Mapping[str, str] | None = None,
) -> tuple[Decision, GenerateSpec]:
    """Who answers, and what it is asked. `make` puts the request together for whom it goes to.

    Of `metadata`, `domain` narrows what an assistant model offers, `escalate` ("true", "false") says
    whether a larger one may answer, and `calls` whether a client that offers no tools wants calls; without
    them the settings do.

    Raises: what `Agent.route`, `make` and `Agent.suited` raise.
    """
    metadata = metadata or {}
    decision = agent.route(model)
    if agent.assistant(decision) is None:
        return decision, make(decision)
    preferences = AssistantPreferences(
        domain=metadata.get("domain"), calls=_flag(metadata, "calls")
    )
    may_escalate = _flag(metadata, "escalate")
    may_escalate = agent.options.may_escalate if may_escalate is None else may_escalate
    larger = agent.larger(decision) if may_escalate else None
    if larger is None:
        return decision, agent.suited(origin, decision, make(decision), preferences)
    confidence: Confidence | None = None
    try:
        spec = agent.suited(origin, decision, make(decision), preferences)
        if spec.intent_question is not None and spec.intent_question.is_decided:
            return decision, spec
        has_result = spec.intent_question is not None and spec.intent_question.reply is not None
        if not has_result:
            confidence = await agent.consult(decision, spec)
            if not confidence.is_abstained:
                return decision, spec
    except (UnsuitedRequest, ContextLengthExceeded):
        pass
    escalated = replace(larger, reason=ESCALATED, confidence=confidence)
    return escalated, make(escalated)


def _flag(metadata: Mapping[str, str], name: str) -> bool | None:
    """A yes or no of the metadata; None where it is not there. Raises: InvalidParameter."""
    asked = metadata.get(name)
    if asked is None:
        return None
    if asked not in ("true", "false"):
        raise InvalidParameter(
            f'`metadata.{name}` is {asked[:80]!r}: write "true" or "false".', param="metadata"
        )
    return asked == "true"
