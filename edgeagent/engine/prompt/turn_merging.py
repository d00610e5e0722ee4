"""Merges messages for a template: system messages into turns of users, neighbours of one role into one."""

from __future__ import annotations

from edgeagent.engine.prompt.template_abilities import Message, TemplateAbilities

# The first message if a template requires that a user begins and an assistant did.
BEGINNING = "."


def adapted(messages: list[Message], abilities: TemplateAbilities) -> list[Message]:
    """The messages in a form that the template accepts, in the same order, with all of their text."""
    messages = _with_systems(messages, abilities)
    if not abilities.has_neighbours:
        messages = _joined(messages, abilities)
    if not abilities.may_open:
        messages = _begun_by_a_user(messages)
    return messages


def _with_systems(messages: list[Message], abilities: TemplateAbilities) -> list[Message]:
    """Keep the system messages that the template shows: each, the first, or none. Others are merged into the
    system message before them or the user's turn after them."""
    if not abilities.has_lone_system and all(m["role"] == "system" for m in messages):
        return [{"role": "user", "content": _text(*(m["content"] for m in messages))}]
    if abilities.has_system and abilities.has_late_system:
        return messages
    out: list[Message] = []
    folded: list[str] = []
    for message in messages:
        if message["role"] == "system":
            if not out and not folded and abilities.has_system:
                out.append(message)
            elif len(out) == 1 and out[0]["role"] == "system":
                out[0] = _and(out[0], message)
            else:
                folded.append(message["content"])
        elif message["role"] == "user" and folded:
            out.append(message | {"content": _text(*folded, message["content"])})
            folded = []
        else:
            out.append(message)
    if folded:
        out.append({"role": "user", "content": _text(*folded)})
    return out


def _joined(messages: list[Message], abilities: TemplateAbilities) -> list[Message]:
    """Merge neighbours of one role. A call stays with the text before it."""
    out: list[Message] = []
    for message in messages:
        last = out[-1] if out else None
        if (
            last is not None
            and last["role"] == message["role"]
            and message["role"] in ("user", "assistant")
            and not last.get("tool_calls")
            and (abilities.shows_call_text or not message.get("tool_calls"))
        ):
            out[-1] = _and(last, message)
        else:
            out.append(message)
    return out


def _begun_by_a_user(messages: list[Message]) -> list[Message]:
    n_systems = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    if n_systems == len(messages) or messages[n_systems]["role"] != "assistant":
        return messages
    return [
        *messages[:n_systems],
        {"role": "user", "content": BEGINNING},
        *messages[n_systems:],
    ]


def _and(first: Message, second: Message) -> Message:
    return first | second | {"content": _text(first["content"], second["content"])}


def _text(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))
