"""The required form of an answer, and the grammar source that enforces it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from edgeagent.engine.structured.grammar import Source, source_of
from edgeagent.engine.structured.schema_relaxation import Attempt
from edgeagent.engine.structured.tool_grammar import source_of_tools
from edgeagent.engine.tool_syntax.tool_syntax import Family
from edgeagent.types.generation import Form
from edgeagent.types.tools import ToolUse


class OutputSpec(NamedTuple):
    """The required form of an answer: a form, or tool calls in the syntax of a model family, whose markers
    are the given special tokens. With both, the answer is one or the other."""

    form: Form | None
    tools: ToolUse | None = None
    family: Family | None = None
    markers: Mapping[str, int] = {}

    def key(self) -> bytes:
        parts = [self.form, self.tools, self.family.name if self.family else None]
        # Keep the order in which it was sent: properties are generated in that order.
        return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()

    def source(self, attempt: Attempt | None = None) -> Source:
        """The source of a grammar. With `attempt`, what it refuses is left out if a schema is not strict.

        Raises: InvalidParameter, UnsupportedParameter.
        """
        if self.tools is not None:
            assert self.family is not None
            return source_of_tools(self.tools, self.form, self.family, self.markers, attempt)
        assert self.form is not None
        return source_of(self.form, attempt)
