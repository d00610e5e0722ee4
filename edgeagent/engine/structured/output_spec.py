"""What an answer must look like, as far as a grammar can hold it to that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from edgeagent.engine.structured.grammar import Source, source_of
from edgeagent.engine.structured.schema_relaxation import Attempt
from edgeagent.engine.structured.tool_grammar import source_of_tools
from edgeagent.engine.tool_syntax.family import Family
from edgeagent.types.generation import Form
from edgeagent.types.tools import ToolUse


class OutputSpec(NamedTuple):
    """What an answer must look like: a form, or calls of tools in the syntax of a family, whose markers
    are these special tokens; with both, one or the other."""

    form: Form | None
    tools: ToolUse | None = None
    family: Family | None = None
    markers: Mapping[str, int] = {}

    def key(self) -> bytes:
        parts = [self.form, self.tools, self.family.name if self.family else None]
        # In the order that it was sent in: properties come in theirs.
        return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()

    def source(self, attempt: Attempt | None = None) -> Source:
        """With an `attempt` what it refuses is left out of schemas that need not hold wholly.

        Raises: InvalidParameter, UnsupportedParameter.
        """
        if self.tools is not None:
            assert self.family is not None
            return source_of_tools(self.tools, self.form, self.family, self.markers, attempt)
        assert self.form is not None
        return source_of(self.form, attempt)
