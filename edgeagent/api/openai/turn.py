"""One turn of the stateful API: what was said before, what is asked, and what is kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeagent.api.http.caller import bounded_priority
from edgeagent.api.openai.item_messages import messages_of
from edgeagent.api.openai.response_writer import ResponseWriter
from edgeagent.api.openai.schemas.items import (
    Body,
    HostedItem,
    InputItem,
    ItemReference,
    is_object,
    kept,
)
from edgeagent.api.openai.schemas.responses import ResponseInput, ResponseRequest
from edgeagent.errors import InvalidParameter
from edgeagent.serving.answer import Agent, Decision, RequestOrigin
from edgeagent.serving.archive import Archive
from edgeagent.serving.cascade import settle
from edgeagent.serving.conversations import Conversations
from edgeagent.serving.prefix_store import PrefixStore, ThreadPosition
from edgeagent.settings import Settings
from edgeagent.store.history import History
from edgeagent.store.responses import StoredResponse
from edgeagent.store.rows import subject_of
from edgeagent.types.caller import Caller
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.ids import new_id
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling


@dataclass
class Turn:
    """A request for a response, ready to be asked. `release` lets others into its conversation."""

    origin: RequestOrigin
    decision: Decision
    body: ResponseRequest
    history: History | None
    inputs: list[Body]
    spec: GenerateSpec
    writer: ResponseWriter
    is_stored: bool
    position: ThreadPosition
    release: Callable[[], None] = field(default=lambda: None)
    notes: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.writer.response["id"])

    @property
    def conversation_id(self) -> str | None:
        return self.body.conversation.id if self.body.conversation is not None else None

    @property
    def about(self) -> str | None:
        """Whom what was said before is about."""
        return self.history.subject if self.history is not None else None

    def stored(self, *, with_inputs: bool = True, with_outputs: bool = True) -> StoredResponse:
        """The response as it is now, for the store."""
        response = self.writer.response
        subject = subject_of(self.body.metadata) or self.about
        inputs = self.inputs if with_inputs else []
        outputs = response["output"] if with_outputs else []
        return StoredResponse(
            id=self.id,
            owner=self.origin.owner,
            subject=subject,
            conversation_id=self.conversation_id,
            previous_id=self.body.previous_response_id,
            thread=self.position.thread,
            model=self.decision.model_id,
            status=response["status"],
            body={key: value for key, value in response.items() if key != "output"},
            items=[
                *(kept(item, is_input=True) for item in inputs),
                *(kept(item, is_input=False) for item in outputs),
            ],
        )


async def prepare(
    body: ResponseRequest, origin: RequestOrigin, caller: Caller, agent: Agent, archive: Archive,
    conversations: Conversations, prefix_store: PrefixStore, settings: Settings,
) -> Turn:  # fmt: skip
    """Look up what was said before and put the question together.

    Raises: InvalidParameter, PreviousNotFound, NotFound, ConversationLocked, StoreOff, StorageFull, ...
    """
    is_stored = body.store if body.store is not None else archive.is_on
    if is_stored:
        await archive.check()
    if body.background and not is_stored:
        raise InvalidParameter(
            "`background` needs an answer that is stored, or nobody could fetch it: leave `store` out"
            + (", or turn the store of this daemon on." if not archive.is_on else "."),
            param="background",
        )
    agent.route(body.model)  # what cannot be answered at all holds no conversation
    epoch = prefix_store.epoch(origin.owner)
    release: Callable[[], None] = lambda: None  # noqa: E731
    if body.conversation is not None:
        await conversations.conversation(origin.owner, body.conversation.id)
        release = conversations.hold(body.conversation.id)
    try:
        history, inputs, prompt = await question(body, origin.owner, conversations)

        def make(decision: Decision) -> GenerateSpec:
            return GenerateSpec(
                prompts=[prompt],
                sampling=body.sampling(agent.defaults(decision)),
                max_tokens=body.max_output_tokens,
                clamps=settings.api.clamps(by_default=False),
                stop=body.stops(),
                scope=origin.key_id,
                ignore_eos=body.ignore_eos,
                priority=bounded_priority(caller, body.priority),
                form=body.form(),
                tools=body.tool_use(caller, has_own=agent.assistant(decision) is not None),
                logprobs=body.n_logprobs,
            )

        decision, spec = await settle(agent, origin, body.model, make, body.metadata)
    except BaseException:
        release()
        raise
    head = head_of(body, decision, spec.sampling, is_stored=is_stored)
    offer = body.tool_offer()
    writer = ResponseWriter(
        head,
        is_stream=bool(body.stream),
        wants_logprobs=body.n_logprobs is not None,
        offer=offer,
    )
    position = ThreadPosition(
        owner=origin.owner,
        scope=origin.key_id,
        thread=history.thread if history is not None else head["id"],
        response_id=head["id"],
        previous_id=body.previous_response_id,
        epoch=epoch,
    )
    notes = [*offer.notes, *notes_on(body.items)]
    return Turn(
        origin, decision, body, history, inputs, spec, writer, is_stored, position, release, notes
    )


def notes_on(items: Sequence[InputItem]) -> list[str]:
    """What was left out of the input."""
    kinds = {item.type[:60] for item in items if isinstance(item, HostedItem)}
    return [
        f"input: items of type `{kind}` say nothing to a model here and were left out."
        for kind in sorted(kinds)
    ]


async def question(
    body: ResponseInput, owner: str, conversations: Conversations
) -> tuple[History | None, list[Body], Prompt]:
    """What was said before, the items that are new, and the prompt of both.

    Raises: InvalidParameter, PreviousNotFound, NotFound, ContextLengthExceeded, StoreOff.
    """
    history = await conversations.history(
        owner,
        response_id=body.previous_response_id,
        conversation_id=body.conversation.id if body.conversation is not None else None,
    )
    inputs = await bodies_of(body.items, owner, conversations)
    before = history.items if history is not None else []
    _check_calls([*before, *inputs])
    messages = messages_of([*before, *inputs], body.instructions)
    if not messages:
        raise InvalidParameter(
            "There is nothing to answer: send `input`, a text or a list of items.", param="input"
        )
    prompt = Prompt(
        messages=messages, variables=body.variables(), may_drop=body.truncation == "auto"
    )
    return history, inputs, prompt


async def bodies_of(
    items: Sequence[InputItem], owner: str, conversations: Conversations
) -> list[Body]:
    """Items as they are kept and shown; one that is only named is looked up, and said once more it is
    another item. Raises: NotFound, StoreOff."""
    names = [item.id for item in items if isinstance(item, ItemReference)]
    found = iter(await conversations.referenced(owner, names) if names else [])
    bodies = []
    for item in items:
        if isinstance(item, ItemReference):
            body = next(found)
            bodies.append(body | {"id": new_id(str(body["id"]).partition("_")[0])})
        elif not isinstance(item, HostedItem):
            bodies.append(item.body())
    return bodies


def _check_calls(items: list[Body]) -> None:
    """Raises: InvalidParameter for a result without its call, or a call whose arguments are not whole."""
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


def head_of(
    body: ResponseRequest, decision: Decision, sampling: Sampling, *, is_stored: bool
) -> dict[str, Any]:
    """The response object before anything has been answered."""
    format_ = body.text.format if body.text is not None else None
    choice = body.tool_choice or "auto"
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued" if body.background else "in_progress",
        "background": bool(body.background),
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "model": decision.model_id,
        "output": [],
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "conversation": body.conversation.model_dump() if body.conversation else None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": body.reasoning.effort if body.reasoning else None,
            "summary": body.reasoning.summary if body.reasoning else None,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": is_stored,
        "temperature": sampling.temperature,
        "text": {
            "format": format_.shown() if format_ is not None else {"type": "text"},
            "verbosity": (body.text.verbosity if body.text else None) or "medium",
        },
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(exclude_none=True),
        "tools": [shown for tool in body.tools or [] if (shown := tool.shown()) is not None],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    }
