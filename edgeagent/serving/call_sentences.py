"""Tool calls as sentences, for clients that offered no tools and cannot read a call.

PlayMusic {"artist":"miles davis"}  ->  This asks for PlayMusic, with artist "miles davis".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from edgeagent.types.answer import CallDelta, CallText, TokenChunk

NO_ANSWERS: Mapping[str, str] = MappingProxyType({})


class CallDescriber:
    """Replaces the calls of one request's answers by sentences, if `is_used`. One for each request.

    `answers` by the name of the call are said as they are."""

    def __init__(self, is_used: bool = True, answers: Mapping[str, str] = NO_ANSWERS) -> None:
        self._is_used = is_used
        self._answers = answers
        self._names: dict[int, dict[int, str]] = {}
        self._pieces: dict[tuple[int, int], list[str]] = {}

    def told(self, chunks: list[TokenChunk]) -> list[TokenChunk]:
        """The chunks without calls; the last chunk of each answer has the sentence and the call itself. May
        be empty while a call is being generated."""
        if not self._is_used:
            return chunks
        found = (self._told_one(chunk) for chunk in chunks)
        return [chunk for chunk in found if chunk is not None]

    def _told_one(self, chunk: TokenChunk) -> TokenChunk | None:
        self._gather(chunk.index, chunk.calls)
        names = self._names.get(chunk.index)
        is_bare = not (chunk.text or chunk.reasoning or chunk.finish or chunk.error)
        if chunk.finish is None or not names:
            plain = msgspec.structs.replace(chunk, calls=[]) if chunk.calls else chunk
            return None if is_bare and chunk.calls else plain
        calls = [
            CallText(name, arguments_of("".join(self._pieces.get((chunk.index, call), []))))
            for call, name in names.items()
        ]
        before = f"{chunk.text}\n" if chunk.text else ""
        return msgspec.structs.replace(
            chunk,
            text=before
            + " ".join(self._answers.get(call.name) or sentence(call) for call in calls),
            calls=[],
            finish="stop" if chunk.finish == "tool_calls" else chunk.finish,
            told=calls[0],
        )

    def _gather(self, index: int, deltas: list[CallDelta]) -> None:
        for delta in deltas:
            if delta.name is not None:
                self._names.setdefault(index, {})[delta.call] = delta.name
            self._pieces.setdefault((index, delta.call), []).append(delta.arguments)


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments of a call; where it was cut off, the complete ones."""
    for whole in (text or "{}", text + "}"):
        try:
            value = msgspec.json.decode(whole)
        except msgspec.DecodeError:
            continue
        if isinstance(value, dict):
            return value
    return {}


def sentence(call: CallText) -> str:
    """The sentence for a call."""
    said = _listed(call.arguments)
    return f"This asks for {call.name}{', with ' + said if said else ''}."


def _listed(arguments: Mapping[str, Any]) -> str:
    parts = [
        f"{name.replace('_', ' ')} {msgspec.json.encode(value).decode()}"
        for name, value in arguments.items()
        if value is not None
    ]
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
