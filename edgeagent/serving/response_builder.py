"""Builds a response object and the events of its stream from the chunks of an answer.

    created, in_progress
    for each item:  output_item.added, [content_part.added, ...delta, ...done, content_part.done,]
                    output_item.done
    completed | incomplete | failed

Every event has the next `sequence_number`. One builder for each response.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

import msgspec

from edgeagent.errors import BadRequest, EdgeAgentError, NotFound, QueueFull, RateLimited
from edgeagent.serving.answer import Answer
from edgeagent.serving.answer_extensions import answer_extension
from edgeagent.serving.items import (
    Body,
    output_text,
    shown_call,
    shown_message,
    shown_reasoning,
)
from edgeagent.serving.logprobs import Speller
from edgeagent.serving.tool_offer import CustomInput, ToolOffer
from edgeagent.types.answer import CallDelta, TokenChunk, TokenLogprob
from edgeagent.types.ids import new_id

_encode = msgspec.json.encode
# Items that are calls, and the names of the events of their text.
CALLS = {
    "function_call": "function_call_arguments",
    "custom_tool_call": "custom_tool_call_input",
}


class ResponseEvent(NamedTuple):
    """One event of a stream: its type, and its JSON as it was when the event happened."""

    kind: str
    data: bytes


class SearchRecord(Protocol):
    """What was found in documents for the answer (serving/knowledge/file_search.py)."""

    def item(self, status: str) -> Body:
        """The item of the search."""
        ...

    def annotations(self, text: str) -> list[Body]:
        """The citations of a message."""
        ...

    def told(self) -> Body:
        """What the answer is based on."""
        ...


class ResponseBuilder:
    """`response` is the response object; its status and output are kept up to date.

    Event loop's thread only. `offer` has the tools of the request, `search` what was found in documents.
    """

    def __init__(
        self,
        response: Body,
        *,
        wants_logprobs: bool,
        offer: ToolOffer | None = None,
        search: SearchRecord | None = None,
    ) -> None:
        self.response = response
        self._offer = offer or ToolOffer()
        self._search = search
        self._input: CustomInput | None = None  # of an unfinished call of a custom tool
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

    # ---- the life of a response

    def begin(self) -> list[ResponseEvent]:
        """The events that announce the response; empty from the second call on."""
        if self._has_begun:
            return []
        self._has_begun = True
        out = [self._event("response.created", response=self.response)]
        if self.response["status"] == "queued":
            out.append(self._event("response.queued", response=self.response))
        return out

    def progress(self) -> list[ResponseEvent]:
        """The event that the answer has begun; empty from the second call on."""
        if self._is_in_progress:
            return []
        self._is_in_progress = True
        self.response["status"] = "in_progress"
        return [self._event("response.in_progress", response=self.response), *self._tell_search()]

    def add(self, chunks: list[TokenChunk]) -> list[ResponseEvent]:
        """Add chunks to the output. Gives their events, after those of the beginning."""
        return self.begin() + self.progress() + self._add(chunks)

    def _add(self, chunks: list[TokenChunk]) -> list[ResponseEvent]:
        out: list[ResponseEvent] = []
        for chunk in chunks:
            if chunk.reasoning:
                out += self._grow("reasoning", chunk.reasoning)
            if chunk.text or chunk.logprobs:
                out += self._grow("message", chunk.text, chunk.logprobs)
            for delta in chunk.calls:
                out += self._grow_call(delta)
            if chunk.finish is not None:
                is_silent = all(item["type"] == "file_search_call" for item in self._output)
                if is_silent and chunk.finish in ("stop", "length"):
                    out += self._grow("message", "")
                out += self._close("incomplete" if chunk.finish == "length" else "completed")
        return out

    def finish(self, answer: Answer) -> list[ResponseEvent]:
        """The last event of an answer that has succeeded; `response` is complete then."""
        self.settle(answer)
        return [self._event(f"response.{self.response['status']}", response=self.response)]

    def settle(self, answer: Answer) -> None:
        """Set the final fields of `response`, so that it can be stored."""
        is_cut = answer.finishes.get(0) == "length"
        self.response["status"] = "incomplete" if is_cut else "completed"
        self.response["incomplete_details"] = {"reason": "max_output_tokens"} if is_cut else None
        if not is_cut and self.response.get("completed_at") is None:  # stored and sent alike
            self.response["completed_at"] = int(time.time())
        self.response["model"] = answer.decision.name  # a route may have chosen another one since
        self.response["usage"] = response_usage(answer)
        self.response["output"] = self._output
        self.response |= answer_extension(answer)
        if self._search is not None:
            own = self.response.get("edgeagent") or {"route": answer.decision.reason}
            self.response["edgeagent"] = own | {"knowledge": self._search.told()}

    def fail(self, error: EdgeAgentError) -> list[ResponseEvent]:
        """The last events of an answer that has failed."""
        out = self.begin() + self.progress() + self._close("incomplete")
        self.response |= {"status": "failed", "error": error_body(error), "output": self._output}
        return [*out, self._event("response.failed", response=self.response)]

    def cancel(self) -> list[ResponseEvent]:
        """The last events of a cancelled answer, with the output so far."""
        out = self.begin() + self._close("incomplete")
        self.response |= {"status": "cancelled", "output": self._output}
        return [*out, self._event("response.incomplete", response=self.response)]

    def snapshot(self) -> Body:
        """The response object with the output so far."""
        return self.response | {"output": self._output}

    # ---- items

    def _tell_search(self) -> list[ResponseEvent]:
        """The item of a search in documents, which was done before the answer."""
        if self._search is None:
            return []
        item = self._search.item("completed")
        index = len(self._output)
        self._output.append(item)
        place = {"item_id": item["id"], "output_index": index}
        begun = self._search.item("in_progress")
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.file_search_call.in_progress", **place),
            self._event("response.file_search_call.searching", **place),
            self._event("response.file_search_call.completed", **place),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _grow(
        self, kind: str, text: str, logprobs: list[TokenLogprob] | None = None
    ) -> list[ResponseEvent]:
        """Add text to a message or to reasoning."""
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
            out.append(self._event("response.content_part.added", **self._position(), part=part))
        self._text.append(text)
        if kind == "message":
            shown = self._speller.shown(logprobs or []) if self._wants_logprobs else []
            self._logprobs += shown
            if text or shown:
                out.append(
                    self._event(
                        "response.output_text.delta", **self._position(), delta=text, logprobs=shown
                    )
                )
        else:
            out.append(self._event("response.reasoning_text.delta", **self._position(), delta=text))
        return out

    def _grow_call(self, delta: CallDelta) -> list[ResponseEvent]:
        out = []
        if self._open is None or delta.call != self._call or self._open["type"] not in CALLS:
            out += self._close("completed")
            self._call = delta.call
            out += self._begin_item(self._new_call(delta.name or ""))
        piece = self._input.feed(delta.arguments) if self._input else delta.arguments
        return out + self._call_delta(piece)

    def _new_call(self, name: str) -> Body:
        """A new call, under the name that the client gave its tool."""
        namespace, own_name = self._offer.place(name)
        is_custom = name in self._offer.customs
        self._input = CustomInput() if is_custom else None
        kind = "custom_tool_call" if is_custom else "function_call"
        return shown_call(kind, new_id("call"), own_name, "", "in_progress", namespace)

    def _call_delta(self, piece: str) -> list[ResponseEvent]:
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

    def _begin_item(self, item: Body) -> list[ResponseEvent]:
        self._open = item
        self._text, self._logprobs, self._speller = [], [], Speller()
        self._output.append(item)
        index = len(self._output) - 1
        return [self._event("response.output_item.added", output_index=index, item=item)]

    def _close(self, status: str) -> list[ResponseEvent]:
        """Complete the open item."""
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

    def _close_part(self, item: Body, text: str, index: int) -> list[ResponseEvent]:
        position = {"item_id": item["id"], "output_index": index, "content_index": 0}
        if item["type"] == "message":
            part = output_text(text, self._logprobs)
            cited = self._search.annotations(text) if self._search is not None else []
            part["annotations"] = cited
            added = [
                self._event(
                    "response.output_text.annotation.added",
                    **position, annotation_index=n, annotation=annotation,
                )
                for n, annotation in enumerate(cited)
            ]  # fmt: skip
            done = self._event(
                "response.output_text.done", **position, text=text, logprobs=self._logprobs
            )
        else:
            part = {"type": "reasoning_text", "text": text}
            added = []
            done = self._event("response.reasoning_text.done", **position, text=text)
        item["content"] = [part]
        return [*added, done, self._event("response.content_part.done", **position, part=part)]

    def _position(self) -> Body:
        assert self._open is not None
        return {
            "item_id": self._open["id"],
            "output_index": len(self._output) - 1,
            "content_index": 0,
        }

    # ---- events

    def _event(self, kind: str, **fields: Any) -> ResponseEvent:
        body = {"type": kind, "sequence_number": self._n_events, **fields}
        self._n_events += 1
        return ResponseEvent(kind, _encode(body))


def response_usage(answer: Answer) -> Body:
    """Token counts in the fields of the Responses API."""
    totals = answer.totals
    return {
        "input_tokens": totals.n_prompt,
        "input_tokens_details": {"cached_tokens": totals.n_cached, "cache_write_tokens": 0},
        "output_tokens": totals.n_generated,
        "output_tokens_details": {"reasoning_tokens": totals.n_reasoning},
        "total_tokens": totals.n_prompt + totals.n_generated,
    }


def error_body(error: EdgeAgentError) -> Body:
    """The error of a failed response. OpenAI has few codes for it; ours is in `type`."""
    code = "server_error"
    if isinstance(error, QueueFull | RateLimited):
        code = "rate_limit_exceeded"
    elif isinstance(error, BadRequest | NotFound):
        code = "invalid_prompt"
    return {"code": code, "message": error.message, "type": error.code, "param": error.param}
