"""One stored response, from a client's input to what is kept of it.

1. check that the response can be stored; one in the background must be
2. check that a model can answer, before a conversation is held for it; quotes of documents need none
3. hold the conversation: one response of it at a time
4. read what was said before, and look up items that the input names
5. make messages and the prompt of them
   search the documents that the request names (serving/knowledge/file_search.py)
6. choose the model and make its request (serving/chat.py, steps 1 to 4)
7. begin the response object
8. the answer: give the engine what it computed of the dialogue before, then lease, request, chunks
   (serving/answer.py); its chunks become items and events (serving/response_builder.py)
9. store the response before its end is sent: a response that says it is stored is on disk
10. have kept what the engine has computed (serving/prefix_store.py)
11. let others into the conversation

In the background the response is stored twice: open at 7, and its end at 9.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError, Interrupted, InvalidParameter
from edgeagent.serving.answer import Answer
from edgeagent.serving.background_responses import BackgroundResponse, BackgroundResponses
from edgeagent.serving.chat import ChatInput, ChatRequest, ChatService
from edgeagent.serving.client_errors import client_error
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.conversations import WHY_INTERRUPTED, Conversations
from edgeagent.serving.item_messages import messages_of
from edgeagent.serving.items import Body, stored_item
from edgeagent.serving.knowledge.base import KnowledgeBase
from edgeagent.serving.knowledge.file_search_tool import decision_of
from edgeagent.serving.prefix_store import PrefixStore, ThreadPosition
from edgeagent.serving.request_log import AnswerLinks
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.response_builder import ResponseBuilder, ResponseEvent
from edgeagent.serving.response_object import check_calls, response_object
from edgeagent.serving.tool_offer import ToolOffer
from edgeagent.serving.turn_privacy import PRIVACY, with_privacy
from edgeagent.store.history import History
from edgeagent.store.responses import StoredResponse
from edgeagent.store.row_queries import subject_of
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt

if TYPE_CHECKING:
    from edgeagent.serving.knowledge.file_search import Consultation

logger = logging.getLogger(__name__)

# Names that this API has for fields which a chat calls otherwise.
PARAMS: Mapping[str, str] = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
}


@dataclass(frozen=True, kw_only=True)
class DialogueInput:
    """What a request continues, and the items that it adds: bodies of items, and references to stored ones
    (type `item_reference`, `id`)."""

    items: Sequence[Body]
    instructions: str | None = None
    previous_id: str | None = None
    conversation_id: str | None = None
    variables: Body = field(default_factory=dict)
    may_drop: bool = False


class Dialogue(NamedTuple):
    """What was said before, the new items, the prompt of both, and their privacy classes."""

    history: History | None
    inputs: list[Body]
    prompt: Prompt
    privacy: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class TurnInput:
    """The wishes of a client for a response.

    `chat` is all but the prompt. `is_stored` None: where this daemon stores anything. `shown` are the
    fields of the response object that repeat the request. `shows_results`: those of a file search.
    """

    chat: ChatInput
    dialogue: DialogueInput
    shown: Body
    is_stored: bool | None = None
    is_background: bool = False
    wants_logprobs: bool = False
    shows_results: bool = False
    offer: ToolOffer = field(default_factory=ToolOffer)


@dataclass
class Turn:
    """A response that is being made: its answer waits for `begin`. `release` frees its conversation and may
    be called twice."""

    origin: RequestOrigin
    answer: Answer
    builder: ResponseBuilder
    dialogue: Dialogue
    position: ThreadPosition
    metadata: Mapping[str, str]
    is_stored: bool
    conversation_id: str | None
    release: Callable[[], None]

    @property
    def id(self) -> str:
        return str(self.builder.response["id"])

    @property
    def is_kept(self) -> bool:
        """Whether anything of it is stored."""
        return self.is_stored or self.conversation_id is not None

    @property
    def about(self) -> str | None:
        """The subject of what was said before."""
        return self.dialogue.history.subject if self.dialogue.history is not None else None

    def stored(self, *, with_inputs: bool = True, with_outputs: bool = True) -> StoredResponse:
        """The response so far, for the store."""
        response = self.builder.response
        inputs = self.dialogue.inputs if with_inputs else []
        outputs = response["output"] if with_outputs else []
        return StoredResponse(
            id=self.id,
            owner=self.origin.owner,
            subject=subject_of(dict(self.metadata)) or self.about,
            conversation_id=self.conversation_id,
            previous_id=self.position.previous_id,
            thread=self.position.thread,
            model=self.answer.decision.name,
            status=response["status"],
            body={key: value for key, value in response.items() if key != "output"},
            items=[
                *(stored_item(item, is_input=True) for item in inputs),
                *(stored_item(item, is_input=False) for item in outputs),
            ],
        )


class TurnService:
    """Makes and keeps responses. Event loop's thread only."""

    def __init__(
        self,
        chats: ChatService,
        archive: Archive,
        conversations: Conversations,
        prefix_store: PrefixStore,
        background: BackgroundResponses,
        knowledge: KnowledgeBase,
    ) -> None:
        self._chats = chats
        self._archive = archive
        self._conversations = conversations
        self._prefix_store = prefix_store
        self._background = background
        self._knowledge = knowledge

    # ---- 1 to 7

    async def begin(self, origin: RequestOrigin, turn: TurnInput) -> Turn:
        """Make everything that comes before the answer. The caller must `release` the turn and its answer.

        Raises: InvalidParameter, PreviousNotFound, NotFound, ConversationLocked, StoreOff, StorageFull, and
        what `ChatService.request` raises.
        """
        is_stored = turn.is_stored if turn.is_stored is not None else self._archive.is_on  # 1
        if is_stored:
            await self._archive.check()
        if turn.is_background and not is_stored:
            raise InvalidParameter(
                "`background` needs an answer that is stored, so that it can be fetched: leave `store` out"
                + (", or turn the store of this daemon on." if not self._archive.is_on else "."),
                param="background",
            )
        decision_of(self._chats.chooser, origin, turn.chat, turn.offer.file_search)  # 2
        epoch = self._prefix_store.epoch(origin.owner)
        release = await self._hold(origin.owner, turn.dialogue.conversation_id)  # 3
        try:
            dialogue = await self.dialogue(origin.owner, turn.dialogue)  # 4, 5
            dialogue, found = await self._consulted(origin, turn, dialogue)
            metadata = with_privacy(turn.chat.metadata, dialogue.privacy)
            chat = replace(turn.chat, prompts=[dialogue.prompt], metadata=metadata)
            text = found.text if found is not None else None
            if found is not None and found.handover == "router":
                # The adapter is one of the model that the client named.
                chat = replace(chat, model=self._knowledge.consultant.handover_model, lora=None)
            request = (
                await self._chats.request(origin, chat)  # 6
                if text is None
                else self._unasked(origin, chat, turn.offer)
            )
            response = response_object(
                turn, metadata, request.decision, request.spec.sampling, is_stored
            )  # 7
            builder = ResponseBuilder(
                response, wants_logprobs=turn.wants_logprobs, offer=turn.offer, search=found
            )
            position = ThreadPosition(
                owner=origin.owner,
                scope=origin.key_id,
                thread=dialogue.history.thread if dialogue.history is not None else response["id"],
                response_id=response["id"],
                previous_id=turn.dialogue.previous_id,
                epoch=epoch,
            )

            async def recall(client: EngineClient) -> None:  # 8
                is_base = request.decision.adapter is None  # what is kept was computed without
                if dialogue.history is not None and is_base:
                    await self._prefix_store.recall(client, position)

            answer = (
                self._chats.answer_to(origin, request, prepare=recall, notes=chat.notes)
                if text is None
                else self._knowledge.consultant.fixed(origin, request, text, chat.notes)
            )
            history = dialogue.history
            answer.record.links = AnswerLinks(
                response["id"], turn.dialogue.conversation_id, history.subject if history else None
            )
        except BaseException:
            release()
            raise
        return Turn(
            origin=origin,
            answer=answer,
            builder=builder,
            dialogue=dialogue,
            position=position,
            metadata=chat.metadata,
            is_stored=is_stored,
            conversation_id=turn.dialogue.conversation_id,
            release=release,
        )

    async def _consulted(
        self, origin: RequestOrigin, turn: TurnInput, dialogue: Dialogue
    ) -> tuple[Dialogue, Consultation | None]:
        """The dialogue with what the documents tell about its question. Raises as `Consultant.consult`."""
        tool, owner = turn.offer.file_search, origin.owner
        if tool is None:
            return dialogue, None
        metadata = with_privacy(turn.chat.metadata, dialogue.privacy)
        found = await self._knowledge.consultant.consult(
            owner, tool, dialogue.prompt, shows_results=turn.shows_results,
            may_fix=turn.chat.form is None,
            why_not=lambda model: self._chats.chooser.why_not(model, origin, metadata),
        )  # fmt: skip
        if found is None or not found.passages or found.text is not None:
            return dialogue, found
        privacy = [*dialogue.privacy, *await self._knowledge.consultant.privacy(owner, tool)]
        prompt = found.with_passages(dialogue.prompt)
        return dialogue._replace(prompt=prompt, privacy=privacy), found

    def _unasked(self, origin: RequestOrigin, chat: ChatInput, offer: ToolOffer) -> ChatRequest:
        """The request of an answer that is known: no model is asked, or loaded."""
        decision = decision_of(self._chats.chooser, origin, chat, offer.file_search)
        return ChatRequest(decision, GenerateSpec(prompts=chat.prompts))

    async def _hold(self, owner: str, conversation_id: str | None) -> Callable[[], None]:
        if conversation_id is None:
            return lambda: None
        await self._conversations.conversation(owner, conversation_id)
        return self._conversations.hold(conversation_id)

    async def dialogue(self, owner: str, question: DialogueInput) -> Dialogue:
        """What was said before, the new items, and the prompt of both.

        Raises: InvalidParameter, PreviousNotFound, NotFound, ContextLengthExceeded, StoreOff.
        """
        history = await self._conversations.history(  # 4
            owner, response_id=question.previous_id, conversation_id=question.conversation_id
        )
        privacy = await self._conversations.privacy_of(owner, question.items)
        inputs = await self._conversations.resolved(owner, question.items)
        before = history.items if history is not None else []
        check_calls([*before, *inputs])
        messages = messages_of([*before, *inputs], question.instructions)  # 5
        if not messages:
            raise InvalidParameter(
                "There is nothing to answer: send `input`, a text or a list of items.",
                param="input",
            )
        prompt = Prompt(messages=messages, variables=question.variables, may_drop=question.may_drop)
        privacy += history.privacy if history is not None else []
        return Dialogue(history, inputs, prompt, privacy)

    # ---- 9 and 10

    async def keep(self, turn: Turn) -> None:
        """Store a complete response; of one that is not stored, what belongs to its conversation. Raises as
        `Conversations.keep`."""
        turn.builder.settle(turn.answer)
        if turn.is_stored:
            await self._conversations.keep(turn.stored(), [turn.about])  # 9
        else:
            await self._add_items(turn)
        self._remember(turn)  # 10

    async def _add_items(self, turn: Turn) -> None:
        assert turn.conversation_id is not None
        items = [
            *(stored_item(item, is_input=True) for item in turn.dialogue.inputs),
            *(stored_item(item, is_input=False) for item in turn.builder.response["output"]),
        ]
        about = [turn.about, subject_of(dict(turn.metadata))]
        place = (turn.origin.owner, turn.conversation_id)
        privacy = turn.builder.response["metadata"].get(PRIVACY)
        await self._conversations.add(*place, items, about, privacy)

    def _remember(self, turn: Turn) -> None:
        self._prefix_store.observe(turn.answer.decision.model_id, turn.answer.usages[0])
        if turn.is_stored and turn.answer.engine_request is not None:
            self._prefix_store.remember(*turn.answer.engine_request, turn.position)

    # ---- in the background

    async def start_in_background(
        self, turn: Turn, at_end: Callable[[], None]
    ) -> BackgroundResponse:
        """Store the open response and go on with it in a task. `at_end` is called however it ends, also
        where this fails. Raises as `Conversations.begin`."""
        running = BackgroundResponse(
            turn.id, turn.origin.owner, turn.builder.snapshot, turn.conversation_id
        )
        try:
            await self._conversations.begin(turn.stored(with_outputs=False), [turn.about])  # 7
        except BaseException:
            turn.release()
            await turn.answer.release()
            at_end()
            raise
        running.publish(turn.builder.begin())

        async def work() -> None:
            try:
                await self._answer(turn, running)
                if turn.builder.response["status"] in ("completed", "incomplete"):
                    self._remember(turn)  # 10
            finally:
                turn.release()  # 11
                at_end()

        self._background.start(running, work)
        return running

    async def _answer(self, turn: Turn, running: BackgroundResponse) -> None:
        """Make a response in the background to its end, whichever that is."""
        builder, answer = turn.builder, turn.answer
        try:
            try:
                await answer.begin()  # 8
                while chunks := await answer.take():
                    running.publish(builder.add(chunks))
            finally:
                await answer.release()
            builder.settle(answer)
            await self._conversations.finish(turn.stored(with_inputs=False))  # 9
            running.publish(builder.finish(answer))
        except asyncio.CancelledError:
            stopped = Interrupted(WHY_INTERRUPTED)
            events = builder.fail(stopped) if running.is_stopping else builder.cancel()
            await self._end_badly(turn, running, events)
        except Exception as exc:
            error = client_error(exc)
            error.param = PARAMS.get(error.param or "", error.param)
            await self._end_badly(turn, running, builder.fail(error))

    async def _end_badly(
        self, turn: Turn, running: BackgroundResponse, events: list[ResponseEvent]
    ) -> None:
        """Store how the response ended. Where that fails, the next start marks it as interrupted."""
        try:
            await self._conversations.finish(turn.stored(with_inputs=False))
        except EdgeAgentError as exc:
            logger.warning("response_not_kept id=%s code=%s", turn.id, exc.code)
        running.publish(events)
