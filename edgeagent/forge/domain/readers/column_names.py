"""Usual names of the columns and fields that have the text, the intent and the answer of an example."""

from __future__ import annotations

import re

# The first that is there counts: a name of a class goes before its number.
TEXT = (
    "text", "utterance", "sentence", "example", "question", "query", "message", "phrase", "sample",
    "training_phrase", "user_input", "user_utterance", "input", "prompt", "instruction", "content", "satz",
    "frage",
)  # fmt: skip
INTENT = (
    "intent", "intent_name", "label_name", "label_text", "category", "label", "class", "target", "tag",
    "topic", "absicht", "kategorie",
)  # fmt: skip
ANSWER = ("answer", "response", "reply", "antwort")


def column_name(cell: str) -> str:
    """A name without case, plural and kind of separator."""
    name = re.sub(r"[\s_-]+", "_", cell.strip().strip("\ufeff").lower()).strip("_")
    return name.removesuffix("s") if name.removesuffix("s") in {*TEXT, *INTENT, *ANSWER} else name
