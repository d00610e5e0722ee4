"""Marks of fields in request bodies. A field without a mark is honoured; refused names are listed apart.

    user: Annotated[str | None, IgnoredField()] = None
    top_k: Annotated[int | None, ExtensionField("0 is no cut by rank")] = Field(None, ge=0)

Marks reach the JSON schema as `x-support` and in the description, and from there the OpenAPI page and `GET
/v1/conformance`, so that these always agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, GetJsonSchemaHandler, model_validator

from edgeagent.api.http.body_base import BodyModel
from edgeagent.errors import UnsupportedParameter

Support = Literal["honoured", "ignored", "refused", "extension"]
SUPPORT = "x-support"
REFUSED = "x-refused"


# The meaning of `strict` for a tool or a format.
STRICT = (
    "true: a schema that cannot be fully enforced is a 400; otherwise it is enforced as far as possible, and "
    "`edgeagent.schema_notes` says what is not"
)


@dataclass(frozen=True)
class FieldMark:
    """Metadata of a field's type; `note` describes the field further."""

    note: str = ""
    support: ClassVar[Support]
    words: ClassVar[str]

    def __get_pydantic_json_schema__(
        self, core: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        description = f"{self.words}: {self.note}" if self.note else self.words
        return handler(core) | {SUPPORT: self.support, "description": description}


class IgnoredField(FieldMark):
    """A field that clients send and that has no effect here."""

    support = "ignored"
    words = "accepted and ignored"


class ExtensionField(FieldMark):
    """A field that OpenAI's API does not have."""

    support = "extension"
    words = "extension"


class RequestModel(BodyModel):
    """A request body. A name that is neither a field nor in `refused` is an error of the client."""

    # Strict, as with OpenAI: "2" is not a number and 1 is not a boolean.
    model_config = ConfigDict(extra="forbid", strict=True)

    # Known fields that we cannot honour, by name, with the values that have no effect; nor has null.
    refused: ClassVar[dict[str, tuple[object, ...]]] = {}
    # What to do instead, where leaving the field out is not enough.
    instead: ClassVar[dict[str, str]] = {}
    # Classes of errors for some of them.
    refusals: ClassVar[dict[str, type[UnsupportedParameter]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_we_cannot_do(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, harmless in cls.refused.items():
            if name in data:
                if not any(data[name] == value for value in (None, *harmless)):
                    way_out = cls.instead.get(name, "leave it out")
                    raise cls.refusals.get(name, UnsupportedParameter)(
                        f"`{name}` is not supported by this version: {way_out}.", param=name
                    )
                data = {key: value for key, value in data.items() if key != name}
        return data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core)
        if cls.refused:
            handler.resolve_ref_schema(schema)[REFUSED] = {
                name: list(harmless) for name, harmless in cls.refused.items()
            }
        return schema
