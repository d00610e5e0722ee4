"""Checks complete answers and calls against their schemas, independently of the grammar that made them.

Only this module uses jsonschema_rs, which is imported with the first schema.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from edgeagent.engine.structured import schema_bounds as schemas
from edgeagent.engine.structured.schema_repair import RepairNote
from edgeagent.engine.structured.schema_rewrite import without_patterns
from edgeagent.errors import InvalidParameter, SchemaViolated
from edgeagent.types.answer import SchemaNote

MAX_FAULTS = 4


def check_meta(schema: dict[str, Any]) -> None:
    """Every keyword's value is of the kind that it must be. Raises: InvalidParameter."""
    import jsonschema_rs

    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as exc:
        path = "/".join(["#", *map(str, exc.instance_path)])
        keyword = next((p for p in reversed(exc.instance_path) if isinstance(p, str)), "")
        raise InvalidParameter(
            f"The schema's `{keyword}` at {path} is not valid: {exc.message[:200]}.",
            param=schemas.PARAM,
        ) from exc
    except (jsonschema_rs.ReferencingError, ValueError) as exc:
        raise InvalidParameter(
            f"The schema cannot be read: {str(exc)[:200]}.", param=schemas.PARAM
        ) from exc


def validator_of(schema: dict[str, Any]) -> Any:
    """Raises: InvalidParameter."""
    import jsonschema_rs

    try:
        # Formats are annotations to JSON Schema; the mask gives them their shape. The linear regex
        # engine, since the answer is checked on the engine's thread.
        return jsonschema_rs.validator_for(
            schema,
            validate_formats=False,
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as exc:
        raise InvalidParameter(
            f"The schema cannot be checked: {str(exc).splitlines()[0][:200]}.", param=schemas.PARAM
        ) from exc


def _finite(text: str) -> float:
    """A number for JSON that no float can hold, like 1e999."""
    return max(-sys.float_info.max, min(sys.float_info.max, float(text)))


class AnswerCheck:
    """The check of one schema, shared by answers; used by one thread at a time. `tool` is None for the schema
    of the answer itself; `notes` say what could not be checked."""

    def __init__(self, found: schemas.BoundedSchema, tool: str | None) -> None:
        self._tool = tool
        self._what = "answer" if tool is None else f"call of {tool!r}"
        self.notes: list[SchemaNote] = []
        self._hard: Any = None
        self._soft: Any = None
        if found.whole is None:
            self._hard = validator_of(found.schema)
            return
        self._hard = self._built(found.schema)
        if found.notes:
            self._soft = self._built(found.whole)

    def _built(self, schema: dict[str, Any]) -> Any:
        """Without patterns where those cannot be read; None, with a note, where the rest cannot."""
        try:
            return validator_of(schema)
        except InvalidParameter:
            self.notes = [self._note(RepairNote("#", "pattern", "is not checked afterwards"))]
        try:
            return validator_of(without_patterns(schema))
        except InvalidParameter as exc:
            self.notes = [
                self._note(RepairNote("#", "", f"answers are not checked: {exc.message}"))
            ]
            return None

    def _note(self, note: RepairNote) -> SchemaNote:
        return SchemaNote(self._tool, *note)

    def of(self, text: str) -> list[SchemaNote]:
        """Notes on what of the schema a complete text does not satisfy and was not held to. Raises:
        SchemaViolated for what it was held to."""
        try:
            value = json.loads(text, parse_float=_finite)
            is_valid = self._hard is None or self._hard.is_valid(value)
            faults = self._faults(value) if is_valid and self._soft is not None else []
        except (ValueError, RecursionError) as exc:
            raise SchemaViolated(
                f"The {self._what} is no JSON that can be checked ({type(exc).__name__}): send the "
                "request again, or simplify the schema."
            ) from exc
        if not is_valid:
            raise SchemaViolated(
                f"The {self._what} does not satisfy its schema, although it was held to it: send the "
                "request again, or simplify the schema."
            )
        return faults

    def _faults(self, value: Any) -> list[SchemaNote]:
        found = []
        for error in self._soft.iter_errors(value):
            *path, keyword = map(str, error.schema_path) if error.schema_path else [""]
            where = "/".join(["#", *path])[:200]
            found.append(
                self._note(RepairNote(where, keyword, f"the {self._what} does not satisfy it"))
            )
            if len(found) == MAX_FAULTS:
                break
        return found
