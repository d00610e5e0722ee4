"""Makes the question for an assistant model from a request: which intents it may choose, and their slots.

    domain -> names -> those that the client and its key allow -> the slots that a call may fill

A client's tools restrict the names; their schemas must accept every call that we could make. Pure: the same
request gives the same question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, structs

from edgeagent.catalog.assistant_intents import Assistant
from edgeagent.catalog.model_ids import nearest
from edgeagent.errors import Forbidden, InvalidParameter
from edgeagent.routing import SHIPPED_RULES
from edgeagent.settings.routing import RoutingSettings
from edgeagent.types.answer import CallText
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.intents import Candidate, IntentQuestion, Slot, WholeCall
from edgeagent.types.tools import Tool, ToolUse

# Rules for clients' tools are imported by the first request that needs them: most daemons never do,
# and the modules take 0.6 MB.
if TYPE_CHECKING:
    from edgeagent.routing.home_assistant.commands import Commands
    from edgeagent.routing.home_assistant.rules import RuleBook

_REMARKS = frozenset({"title", "description", "examples", "default", "$comment"})
_OBJECT = _REMARKS | {"type", "properties", "required", "additionalProperties"}


class AssistantPreferences(Struct, frozen=True, kw_only=True):
    """The wishes of a request for an assistant model: intents of one `domain` only; with `calls` true or
    false, calls or sentences where the request has no tools."""

    domain: str | None = None
    calls: bool | None = None


@dataclass(frozen=True)
class AssistantOptions:
    """How assistant models answer, by the settings.

    `assistant_calls` decides what a client without tools gets: a call ("always"), a sentence ("never"), or a
    call only where it names the model ("named"). `assistant_tools` is the mapping of clients' tools.
    """

    settings: RoutingSettings = field(default_factory=RoutingSettings)

    @property
    def may_escalate(self) -> bool:
        return self.settings.escalate

    def read_book(self) -> RuleBook | None:
        """The mapping of clients' tools; None where it is off. Raises: SettingsError."""
        from edgeagent.routing.home_assistant.rules import read_rules

        tools = self.settings.assistant_tools
        return None if tools == "off" else read_rules(tools or SHIPPED_RULES)

    def tells(self, preferences: AssistantPreferences, *, is_named: bool) -> bool:
        """Whether calls are sent as sentences."""
        if preferences.calls is not None:
            return not preferences.calls
        calls = self.settings.assistant_calls
        return calls == "never" or (calls == "named" and not is_named)


NO_PREFERENCES, DEFAULT_OPTIONS = AssistantPreferences(), AssistantOptions()


class UnsuitedRequest(InvalidParameter):
    """The request is valid, but asks for something that an assistant model does not do; a larger model
    might."""


def make_intent_question(
    spec: GenerateSpec,
    assistant: Assistant,
    *,
    model_id: str,
    domain: str | None = None,
    allowed: frozenset[str] | None = None,
    tells: bool = False,
    book: RuleBook | None = None,
) -> IntentQuestion:
    """The question of a chat.

    `domain` None offers all domains; `allowed` are the tools of the caller's key. With `tells`, a client
    without tools gets the call as a sentence. Tools in `book` are called by its rules.

    Raises: UnsuitedRequest; InvalidParameter for an unknown domain; Forbidden where no intent is left.
    """
    names = _names(assistant, domain)
    _check_kind(spec, model_id)
    messages = spec.prompts[0].messages or []
    use = spec.tools
    if use is not None and book is not None:
        from edgeagent.routing.home_assistant.tool_mapping import is_mapped

        tools = [tool for tool in use.tools if use.name in (None, tool.name)]
        foreign = [tool for tool in tools if tool.name not in names]
        if is_mapped(book, foreign):
            return _mapped(book, use, tools, messages, assistant, model_id, domain)
    if use is not None and use.tools:
        candidates = [_restricted(tool, assistant, names, model_id, domain) for tool in use.tools]
    else:
        candidates = [_whole(name, assistant) for name in names]
    if use is not None and use.name is not None:
        if all(candidate.name != use.name for candidate in candidates):
            raise _unknown(use.name, names, model_id, domain, "tool_choice")
        candidates = [candidate for candidate in candidates if candidate.name == use.name]
    if allowed is not None:
        candidates = [candidate for candidate in candidates if candidate.name in allowed]
        if not candidates:
            raise Forbidden(
                f"This key may use none of the tools of {model_id}: use a key that lists some of them.",
                param="model",
            )
    return IntentQuestion(
        text=_question(messages, model_id),
        candidates=candidates,
        out_of_scope=assistant.out_of_scope,
        threshold=assistant.threshold(domain),
        may_abstain=use is None or use.choice != "required",
        otherwise=f"Out of scope: this asks for none of the {len(candidates)} intents on offer.",
        domain=domain,
        reply=_reply(messages),
        tells=tells and use is None,
    )


NOT_UNDERSTOOD = "I do not know how to do that: name a device of your home, and what to do with it."


def _mapped(
    book: RuleBook,
    use: ToolUse,
    tools: Sequence[Tool],
    messages: list[dict[str, Any]],
    assistant: Assistant,
    model_id: str,
    domain: str | None,
) -> IntentQuestion:
    """The question of a chat with tools of the mapping; usually its rules have decided the call."""
    from edgeagent.routing.home_assistant.tool_mapping import answer_to_results, commands_of

    text = _question(messages, model_id)
    commands = commands_of(book, tools, messages)
    command = commands.read(text)
    if command is not None and len(command.calls) > 1 and not use.is_parallel:
        command = None
    decided = IntentQuestion(
        text=text, candidates=[], out_of_scope=assistant.out_of_scope, threshold=0.0, may_abstain=True,
        otherwise=NOT_UNDERSTOOD, domain=domain, is_decided=True,
    )  # fmt: skip
    if (reply := answer_to_results(command, messages)) is not None:
        return structs.replace(decided, reply=reply)
    if command is not None and command.calls:
        return structs.replace(decided, calls=[_whole_call(call) for call in command.calls])
    if use.choice == "required":
        raise UnsuitedRequest(
            f"`tool_choice` asks for a call, and {model_id} reads none from the last message: leave "
            "it out, or ask another model.",
            param="tool_choice",
        )
    if command is not None and command.question is not None:
        return structs.replace(decided, reply=command.question)
    candidates = _meaning_tools(commands, text, assistant, domain)
    if not candidates:
        return structs.replace(decided, reply=NOT_UNDERSTOOD, is_decided=False)
    return structs.replace(
        decided, candidates=candidates, threshold=assistant.threshold(domain), is_decided=False
    )


def _whole_call(call: CallText) -> WholeCall:
    return WholeCall(call.name, msgspec.json.encode(call.arguments).decode())


def _meaning_tools(
    commands: Commands, text: str, assistant: Assistant, domain: str | None
) -> list[Candidate]:
    """The model's intents, where at least one maps to a tool and the text has all its values; the others
    are foils."""
    found = {intent: commands.of_intent(intent, text) for intent in commands.intents}
    calls = {intent: one.calls[0] for intent, one in found.items() if one is not None and one.calls}
    names = assistant.names(domain)
    if not any(name in calls for name in names):
        return []
    return [
        Candidate(
            name,
            bool(assistant.slots(name)),
            call=_whole_call(calls[name]) if name in calls else None,
            is_foil=name not in calls,
        )
        for name in names
    ]


def _names(assistant: Assistant, domain: str | None) -> tuple[str, ...]:
    if domain is not None and domain not in assistant.domains:
        known = ", ".join(assistant.domains)
        raise InvalidParameter(
            f"`metadata.domain` is {domain[:80]!r}, and the domains are {known}: name one of them, or none "
            "for all.",
            param="metadata",
        )
    return assistant.names(domain)


def _check_kind(spec: GenerateSpec, model_id: str) -> None:
    """Raises: UnsuitedRequest for requests that a call cannot answer."""
    asked = None
    if spec.form is not None:
        asked = ("an answer in a given format", "response_format")
    elif spec.logprobs is not None:
        asked = ("log-probabilities of tokens", "logprobs")
    elif spec.prompts[0].prefill:
        asked = ("an answer with a given beginning", "messages")
    if asked is not None:
        what, param = asked
        raise UnsuitedRequest(
            f"Model {model_id} answers with calls of its own tools, and the request wants {what}: leave "
            f"`{param}` out, or ask another model.",
            param=param,
        )


def _question(messages: list[dict[str, Any]], model_id: str) -> str:
    """The user's last message. Raises: UnsuitedRequest without one."""
    for message in reversed(messages):
        if message["role"] == "user":
            return str(message.get("content") or "")
    raise UnsuitedRequest(
        f"Model {model_id} answers the user's last message, and there is none: send one.",
        param="messages",
    )


def _reply(messages: list[dict[str, Any]]) -> str | None:
    """The results of calls, where they are the last messages: an assistant model returns them unchanged."""
    results: list[str] = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        results.insert(0, str(message.get("content") or ""))
    return "\n".join(results) if results else None


def _whole(name: str, assistant: Assistant) -> Candidate:
    slots = assistant.slots(name)
    return Candidate(
        name, bool(slots), [Slot(slot) for slot in slots], answer=assistant.answer(name)
    )


def _restricted(
    tool: Tool, assistant: Assistant, names: Iterable[str], model_id: str, domain: str | None
) -> Candidate:
    """An intent with only the slots that the client's tool has in its schema."""
    if tool.name not in names:
        raise _unknown(tool.name, names, model_id, domain, "tools")
    slots = assistant.slots(tool.name)
    if not tool.parameters:
        return Candidate(tool.name, bool(slots), [])
    return Candidate(tool.name, bool(slots), _slots(tool, slots, model_id))


def _slots(tool: Tool, known: tuple[str, ...], model_id: str) -> list[Slot]:
    """Raises: UnsuitedRequest for a schema that some call of this model would violate."""
    schema = tool.parameters
    if odd := sorted(schema.keys() - _OBJECT):
        raise _unsuited(tool, f"its parameters have `{odd[0][:80]}`", model_id)
    properties, required = schema.get("properties", {}), schema.get("required", [])
    is_object = schema.get("type", "object") == "object" and isinstance(properties, Mapping)
    if not is_object or not isinstance(required, list):
        raise _unsuited(tool, "its parameters are not an object with `properties`", model_id)
    found = []
    for name in known:
        if name not in properties:
            if name in required:
                raise _unsuited(tool, f"{name!r} is required but not described", model_id)
            continue
        is_nullable = _is_nullable_text(properties[name], tool, name, model_id)
        if name in required:
            found.append(Slot(name, "nullable" if is_nullable else "required"))
        else:
            found.append(Slot(name))
    for name in required:
        if name not in known:
            said = f"the argument {str(name)[:80]!r} is required, and the model knows "
            said += f"only {', '.join(known)}" if known else "none of this intent"
            raise _unsuited(tool, said, model_id)
    return found


def _is_nullable_text(schema: Any, tool: Tool, name: str, model_id: str) -> bool:
    """Whether a slot may be null. Raises: UnsuitedRequest for one that does not accept every string."""
    kind = schema.get("type", "string") if isinstance(schema, Mapping) else None
    kinds = kind if isinstance(kind, list) else [kind]
    if (
        not isinstance(schema, Mapping)
        or "string" not in kinds
        or schema.keys() - _REMARKS - {"type"}
    ):
        raise _unsuited(tool, f"its {name!r} is not just a string", model_id)
    return "null" in kinds


def _unsuited(tool: Tool, why: str, model_id: str) -> UnsuitedRequest:
    return UnsuitedRequest(
        f"Tool {tool.name!r}: {why}, and {model_id} fills slots with texts of the message: describe the "
        "slots as plain optional strings, or ask another model.",
        param="tools",
    )


def _unknown(
    name: str, names: Iterable[str], model_id: str, domain: str | None, param: str
) -> UnsuitedRequest:
    names = list(names)
    near = nearest(name, names)
    hint = f"did you mean {near!r}? It" if near else "It"
    place = f"its domain {domain!r}" if domain is not None else "its domains"
    return UnsuitedRequest(
        f"Model {model_id} has no intent {name[:80]!r} among the {len(names)} of {place}: {hint} calls only "
        "what it was trained for; leave the tool out, or ask another model.",
        param=param,
    )
