"""Who answers a chat that names no model: the small assistant where it is sure, else its larger model.

1. the client named a model                            that one answers, whatever it is
2. the default is no assistant model                   it answers
3. no larger model is installed, or it is not allowed  the assistant answers, or abstains
4. the assistant does not do what is asked for         the larger one answers ("escalated")
5. it abstains                                         the larger one answers ("escalated")
6. else                                                the assistant answers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from edgeagent.agent import Agent, Asked, Decision
from edgeagent.choosing import Unsuited
from edgeagent.errors import ContextLengthExceeded, InvalidParameter
from edgeagent.intents import Confidence
from edgeagent.types import GenerateSpec

ESCALATED = "escalated"

Make = Callable[[Decision], GenerateSpec]


async def settle(
    agent: Agent,
    asked: Asked,
    model: str | None,
    make: Make,
    metadata: Mapping[str, str] | None = None,
) -> tuple[Decision, GenerateSpec]:
    """Who answers, and what it is asked. `make` puts the request together for whom it goes to.

    Of `metadata`, `domain` narrows what an assistant model offers, and `escalate` ("true", "false") says
    whether a larger one may answer; without it the setting does.

    Raises: what `Agent.route`, `make` and `Agent.suited` raise.
    """
    metadata = metadata or {}
    decision = agent.route(model)
    if agent.assistant(decision) is None:
        return decision, make(decision)
    domain = metadata.get("domain")
    larger = agent.larger(decision) if _may_escalate(agent, metadata) else None
    if larger is None:
        return decision, agent.suited(asked, decision, make(decision), domain)
    confidence: Confidence | None = None
    try:
        spec = agent.suited(asked, decision, make(decision), domain)
        has_result = spec.choosing is not None and spec.choosing.reply is not None
        if not has_result:
            confidence = await agent.consult(decision, spec)
            if not confidence.is_abstained:
                return decision, spec
    except (Unsuited, ContextLengthExceeded):
        pass
    escalated = replace(larger, reason=ESCALATED, confidence=confidence)
    return escalated, make(escalated)


def _may_escalate(agent: Agent, metadata: Mapping[str, str]) -> bool:
    asked = metadata.get("escalate")
    if asked is None:
        return agent.may_escalate
    if asked not in ("true", "false"):
        raise InvalidParameter(
            f'`metadata.escalate` is {asked[:80]!r}: write "true" or "false".', param="metadata"
        )
    return asked == "true"
