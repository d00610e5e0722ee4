"""An answer in the words of the Responses API: items that grow, and the events that tell of it.

    created, in_progress
    for each item:  output_item.added, [content_part.added, ...delta, ...done, content_part.done,]
                    output_item.done
    completed | incomplete | failed

Every event has the next `sequence_number`, and its type on a line of its own. One writer for each
response.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from edgeagent.api.http.errors import status_of
from edgeagent.api.http.tool_calls import new_call_id
from edgeagent.api.http.tool_offer import CustomInput, ToolOffer
from edgeagent.api.http.usage import own_of, usage_of
from edgeagent.api.openai.logprobs import Speller
from edgeagent.api.openai.schemas.items import (
    Body,
    output_text,
    shown_call,
    shown_custom_call,
    shown_message,
    shown_reasoning,
)
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.answer import Answer
from edgeagent.types.answer import CallDelta, PromptFacts, TokenChunk, TokenLogprob

_encode = msgspec.json.encode
# Items that are calls, and what the events of their text are called.
CALLS = {
    "function_call": "function_call_arguments",
    "custom_tool_call": "custom_tool_call_input",
}
PING = b": ping\n\n"
# OpenAI's codes of a failed response are few; ours is in `type`.
CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt", 404: "invalid_prompt"}


class ResponseWriter:
    """`head` is the response object as it was asked for; its status and output are kept up to date."""

    content_type = b"text/event-stream; charset=utf-8"
    ping: bytes | None = PING

    def __init__(
        self, head: Body, *, is_stream: bool, wants_logprobs: bool, offer: ToolOffer | None = None
    ) -> None:
        self.response = head
        self._offer = offer or ToolOffer()
        self._input: CustomInput | None = None  # of a call of a custom tool in the making
        self._is_stream = is_stream
        self._wants_logprobs = wants_logprobs
        self._output: list[Body] = []
        self._open: Body | None = None
        self._text: list[str] = []
        self._logprobs: list[Body] = []
        self._speller = Speller()
        self._call = -1
        self._n_events = 0
        self._has_begun = False
        self._is_in_progress = False
        self.response["output"] = []

    # ---- what `stream.AnswerResponse` asks for

    def opening(self, facts: PromptFacts | None) -> bytes:
        return b"".join(self.begin() + self._progress())

    def events(self, chunks: list[TokenChunk]) -> bytes:
        return b"".join(self.listed(chunks))

    def collect(self, chunks: list[TokenChunk]) -> None:
        """Keep chunks for an answer that is not streamed; `events` keeps those of one that is."""
        if not self._is_stream:
            self._told(chunks)

    def last_events(self, answer: Answer) -> bytes:
        return b"".join(self.finish(answer))

    def whole(self, answer: Answer) -> bytes:
        self.finish(answer)
        return _encode(self.response)

    def error_events(self, error: EdgeAgentError) -> bytes:
        return b"".join(self.fail(error))

    # ---- the story

    def begin(self) -> list[bytes]:
        """That there will be an answer; once."""
        if self._has_begun:
            return []
        self._has_begun = True
        out = [self._event("response.created", response=self.response)]
        if self.response["status"] == "queued":
            out.append(self._event("response.queued", response=self.response))
        return out

    def _progress(self) -> list[bytes]:
        """That it is being made; once."""
        if self._is_in_progress:
            return []
        self._is_in_progress = True
        self.response["status"] = "in_progress"
        return [self._event("response.in_progress", response=self.response)]

    def listed(self, chunks: list[TokenChunk]) -> list[bytes]:
        """The events of some chunks, one by one."""
        return self.begin() + self._progress() + self._told(chunks)

    def _told(self, chunks: list[TokenChunk]) -> list[bytes]:
        out: list[bytes] = []
        for chunk in chunks:
            if chunk.reasoning:
                out += self._grow("reasoning", chunk.reasoning)
            if chunk.text or chunk.logprobs:
                out += self._grow("message", chunk.text, chunk.logprobs)
            for delta in chunk.calls:
                out += self._grow_call(delta)
            if chunk.finish is not None:
                if not self._output and chunk.finish in ("stop", "length"):
                    out += self._grow("message", "")
                out += self._close("incomplete" if chunk.finish == "length" else "completed")
        return out

    def finish(self, answer: Answer) -> list[bytes]:
        """The last event of an answer that has ended well; `response` is whole then."""
        self.settle(answer)
        return [self._event(f"response.{self.response['status']}", response=self.response)]

    def settle(self, answer: Answer) -> None:
        """Make `response` what it is at the end, so that it can be kept."""
        is_cut = answer.finishes.get(0) == "length"
        self.response["status"] = "incomplete" if is_cut else "completed"
        self.response["incomplete_details"] = {"reason": "max_output_tokens"} if is_cut else None
        self.response["completed_at"] = None if is_cut else int(time.time())
        self.response["usage"] = response_usage(answer)
        self.response["output"] = self._output
        self.response |= own_of(answer)

    def fail(self, error: EdgeAgentError) -> list[bytes]:
        """The last event of an answer that could not be finished."""
        out = self.begin() + self._progress() + self._close("incomplete")
        self.response |= {"status": "failed", "error": error_of(error), "output": self._output}
        return [*out, self._event("response.failed", response=self.response)]

    def cancel(self) -> list[bytes]:
        """The end of an answer that nobody wants any more, with what is there of it."""
        out = self.begin() + self._close("incomplete")
        self.response |= {"status": "cancelled", "output": self._output}
        return [*out, self._event("response.incomplete", response=self.response)]

    def now(self) -> Body:
        """The response as far as it is."""
        return self.response | {"output": self._output}

    # ---- items

    def _grow(
        self, kind: str, text: str, logprobs: list[TokenLogprob] | None = None
    ) -> list[bytes]:
        """New text of a message or of reasoning."""
        out = []
        if self._open is None or self._open["type"] != kind:
            out += self._close("completed")
            if kind == "message":
                item = shown_message("assistant", [], "in_progress")
                part: Body = output_text("")
            else:
                item = shown_reasoning("", "in_progress")
                part = {"type": "reasoning_text", "text": ""}
            out += self._begin_item(item)
            out.append(self._event("response.content_part.added", **self._place(), part=part))
        self._text.append(text)
        if kind == "message":
            shown = self._speller.shown(logprobs or []) if self._wants_logprobs else []
            self._logprobs += shown
            if text or shown:
                out.append(
                    self._event(
                        "response.output_text.delta", **self._place(), delta=text, logprobs=shown
                    )
                )
        else:
            out.append(self._event("response.reasoning_text.delta", **self._place(), delta=text))
        return out

    def _grow_call(self, delta: CallDelta) -> list[bytes]:
        out = []
        if self._open is None or delta.call != self._call or self._open["type"] not in CALLS:
            out += self._close("completed")
            self._call = delta.call
            out += self._begin_item(self._new_call(delta.name or ""))
        piece = self._input.feed(delta.arguments) if self._input else delta.arguments
        return out + self._call_delta(piece)

    def _new_call(self, name: str) -> Body:
        """A call as the client knows its tool."""
        namespace, own_name = self._offer.place(name)
        is_custom = name in self._offer.customs
        self._input = CustomInput() if is_custom else None
        shown = shown_custom_call if is_custom else shown_call
        return shown(new_call_id(), own_name, "", "in_progress", namespace)

    def _call_delta(self, piece: str) -> list[bytes]:
        if not piece:
            return []
        assert self._open is not None
        self._text.append(piece)
        return [
            self._event(
                f"response.{CALLS[self._open['type']]}.delta",
                item_id=self._open["id"], output_index=len(self._output) - 1, delta=piece,
            )
        ]  # fmt: skip

    def _begin_item(self, item: Body) -> list[bytes]:
        self._open = item
        self._text, self._logprobs, self._speller = [], [], Speller()
        self._output.append(item)
        index = len(self._output) - 1
        return [self._event("response.output_item.added", output_index=index, item=item)]

    def _close(self, status: str) -> list[bytes]:
        """End the item that is growing."""
        item = self._open
        if item is None:
            return []
        out = self._call_delta(self._input.finish()) if self._input else []
        self._open = self._input = None
        text = "".join(self._text)
        item["status"] = status
        index = len(self._output) - 1
        if item["type"] == "function_call":
            item["arguments"] = text
            out.append(
                self._event(
                    "response.function_call_arguments.done",
                    item_id=item["id"], output_index=index, name=item["name"], arguments=text,
                )
            )  # fmt: skip
        elif item["type"] == "custom_tool_call":
            item["input"] = text
            out.append(
                self._event(
                    "response.custom_tool_call_input.done",
                    item_id=item["id"], output_index=index, input=text,
                )
            )  # fmt: skip
        else:
            out += self._close_part(item, text, index)
        out.append(self._event("response.output_item.done", output_index=index, item=item))
        return out

    def _close_part(self, item: Body, text: str, index: int) -> list[bytes]:
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        if item["type"] == "message":
            part = output_text(text, self._logprobs)
            done = self._event(
                "response.output_text.done", **place, text=text, logprobs=self._logprobs
            )
        else:
            part = {"type": "reasoning_text", "text": text}
            done = self._event("response.reasoning_text.done", **place, text=text)
        item["content"] = [part]
        return [done, self._event("response.content_part.done", **place, part=part)]

    def _place(self) -> Body:
        assert self._open is not None
        return {
            "item_id": self._open["id"],
            "output_index": len(self._output) - 1,
            "content_index": 0,
        }

    # ---- events

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._n_events, **fields}
        self._n_events += 1
        return b"event: " + kind.encode() + b"\ndata: " + _encode(body) + b"\n\n"


def response_usage(answer: Answer) -> Body:
    """Token counts in the words of the Responses API."""
    usage = usage_of(answer)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {
            "reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"]
        },
        "total_tokens": usage["total_tokens"],
    }


def error_of(error: EdgeAgentError) -> Body:
    return {
        "code": CODES.get(status_of(error), "server_error"),
        "message": error.message,
        "type": error.code,
        "param": error.param,
    }
