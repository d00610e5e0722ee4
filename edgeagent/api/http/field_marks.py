"""What becomes of a field in a request: it is honoured, unless its type is marked here or its name refused.

    user: Annotated[str | None, IgnoredField()] = None
    top_k: Annotated[int | None, ExtensionField("0 is no cut by rank")] = Field(None, ge=0)

The marks reach the JSON schema as `x-support` and in the description, and from there the OpenAPI page
and `GET /v1/conformance`, which therefore cannot say anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator

from edgeagent.errors import UnsupportedParameter

Support = Literal["honoured", "ignored", "refused", "extension"]
SUPPORT = "x-support"
REFUSED = "x-refused"


# What `strict` means of a tool or a format.
STRICT = (
    "true: a schema that cannot be enforced wholly is a 400; else it is enforced as far as it can be, and "
    "`edgeagent.schema_notes` says what is not"
)


@dataclass(frozen=True)
class FieldMark:
    """Metadata of a field's type; `note` is what else there is to say of the field."""

    note: str = ""
    support: ClassVar[Support]
    words: ClassVar[str]

    def __get_pydantic_json_schema__(
        self, core: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        description = f"{self.words}: {self.note}" if self.note else self.words
        return handler(core) | {SUPPORT: self.support, "description": description}


class IgnoredField(FieldMark):
    """A field that clients send and that changes nothing here."""

    support = "ignored"
    words = "accepted and ignored"


class ExtensionField(FieldMark):
    """A field that OpenAI's API does not have."""

    support = "extension"
    words = "extension"


class RequestModel(BaseModel):
    """A request body: a name that is neither a field nor in `refused` is a mistake of the client's."""

    # Strict: "2" is no number and 1 no boolean, as with OpenAI; a typo would else change the meaning.
    model_config = ConfigDict(extra="forbid", strict=True)

    # Fields of the API that we know and cannot honour, with the values that ask for nothing; null does
    # not either.
    refused: ClassVar[dict[str, tuple[object, ...]]] = {}
    # What to do where leaving one of them out is not all.
    instead: ClassVar[dict[str, str]] = {}
    # Errors that some of them have of their own.
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
