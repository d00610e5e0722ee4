"""`response_format`: the format of an answer."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.api.http.field_support import STRICT, ExtensionField, IgnoredField
from edgeagent.errors import InvalidParameter
from edgeagent.types.generation import Form

ANY_OBJECT = Form(kind="json_schema", text='{"type":"object"}')
# The worker limits a schema's size, depth and keywords; this limit is for a frame.
MAX_GRAMMAR_CHARS = 64 << 10

Grammar = Annotated[str, StringConstraints(min_length=1, max_length=MAX_GRAMMAR_CHARS)]


class JsonSchemaFormat(BodyModel):
    """A schema and its name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: Annotated[str | None, IgnoredField()] = None
    # `schema` is a method of every BaseModel.
    content: dict[str, Any] = Field(alias="schema", description="a JSON schema; /schema has more")
    strict: bool | None = Field(None, description=STRICT)


class ResponseFormat(BodyModel):
    """Free text, any JSON object, or JSON by a schema; with the setting `allow_grammars` also a regular
    expression or a Lark grammar (an extension)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text", "json_object", "json_schema", "regex", "lark"]
    json_schema: JsonSchemaFormat | None = Field(None, description="with type `json_schema`")
    regex: Annotated[Grammar | None, ExtensionField("with type `regex`")] = None
    lark: Annotated[Grammar | None, ExtensionField("with type `lark`")] = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> ResponseFormat:
        for name in ("json_schema", "regex", "lark"):
            is_given = getattr(self, name) is not None
            if is_given != (name == self.type):
                verb = "leave it out" if is_given else "add it"
                raise ValueError(
                    f"`{name}` goes with the type of that name, the type is {self.type!r}: {verb}"
                )
        return self

    def form(self, *, allow_grammars: bool) -> Form | None:
        """The format for the engine; None for free text. Raises: InvalidParameter."""
        if self.type == "text":
            return None
        if self.json_schema is not None:
            is_strict = bool(self.json_schema.strict)
            return schema_form(self.json_schema.content, "response_format", is_strict=is_strict)
        if self.type == "json_object":
            return ANY_OBJECT
        if not allow_grammars:
            raise InvalidParameter(
                f"A response format of type {self.type!r} is not allowed here: use `json_schema`, or "
                "turn on the setting `allow_grammars`.",
                param="response_format",
            )
        assert self.type in ("regex", "lark")
        return Form(kind=self.type, text=self.regex or self.lark or "")


def schema_form(schema: dict[str, Any], param: str, *, is_strict: bool) -> Form:
    """JSON by a schema, whose properties keep their order. Raises: InvalidParameter."""
    try:
        return Form(kind="json_schema", text=json.dumps(schema), is_strict=is_strict)
    except (RecursionError, ValueError):
        raise InvalidParameter(
            "The schema is nested too deeply or has a number that is too long: send a flatter one.",
            param=param,
        ) from None
