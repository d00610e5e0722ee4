"""Turns the results of tool calls into sentences, for a model that only makes calls.

Home Assistant's results are the response to an intent (`response_type`, `data.success`, `data.failed`), or
`{"success": true, "result": ...}` with a time, a list of items, or the states of devices; newer versions
put either under `data`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from edgeagent.routing.home_assistant.commands import Command
from edgeagent.routing.home_assistant.entities import Entity, entities_in
from edgeagent.routing.home_assistant.targets import Target

MAX_DEVICES = 8
_DETAILS = {
    "current_temperature": "{} degrees", "temperature": "set to {} degrees",
    "humidity": "{} percent humidity",
    "position": "{} percent open", "percentage": "at {} percent",
}  # fmt: skip


def told(command: Command | None, results: Sequence[str]) -> str:
    """One or more results as a sentence; what is none of Home Assistant's is passed on as it is."""
    said = list(dict.fromkeys(filter(None, (_told(command, result) for result in results))))
    return " ".join(said) or (command.done if command is not None and command.done else "Done.")


def _told(command: Command | None, text: str) -> str:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    if not isinstance(value, dict):
        return text
    if isinstance(value.get("data"), dict) and "response_type" not in value and "error" in value:
        value = value["data"] if not value["error"] else {"error": value["error"]}
    if error := _error(value):
        return f"That did not work: {error.rstrip('.')}."
    if value.get("success") is True and "result" in value:
        return _result(command, value["result"])
    speech = value.get("speech")
    if isinstance(speech, dict) and isinstance(speech.get("plain"), dict):
        return str(speech["plain"].get("speech") or "") or _done(command)
    if isinstance(value.get("response_type"), str) or value.get("success") is True:
        return _done(command)
    return text


def _done(command: Command | None) -> str:
    return command.done if command is not None else ""


def _error(value: dict[str, Any]) -> str | None:
    """Why a call failed, where it did."""
    for key in ("error_text", "error"):
        if value.get(key):
            return str(value[key])
    data = value.get("data")
    failed = data.get("failed") if isinstance(data, dict) else None
    if failed:
        return "no answer from " + ", ".join(_name(one) for one in failed)
    if value.get("response_type") == "error":
        return "the device could not do it"
    return "no reason was given" if value.get("success") is False else None


def _name(value: Any) -> str:
    return str(value.get("name", "a device")) if isinstance(value, dict) else str(value)


def _result(command: Command | None, result: Any) -> str:
    if isinstance(result, dict) and isinstance(result.get("time"), str):
        return _time(command, result)
    if isinstance(result, list):
        items = [
            str(one.get("summary", one)) if isinstance(one, dict) else str(one) for one in result
        ]
        return f"There is {', '.join(items)}." if items else "There is nothing on it."
    if isinstance(result, str):
        entities = entities_in(result)
        return _states(command, entities) if entities else result
    return _done(command) or msgspec.json.encode(result).decode()


def _time(command: Command | None, result: dict[str, Any]) -> str:
    """The time or the date, whichever was asked for."""
    wants_date = command is not None and command.topic == "date"
    with suppress(ValueError, TypeError):
        if wants_date:
            day = datetime.date.fromisoformat(str(result["date"]))
            return f"It is {day:%A}, {day.day} {day:%B} {day.year}."
        return f"It is {datetime.time.fromisoformat(result['time']):%H:%M}."
    return f"It is {result.get('date', '')} {result['time']}."


def _states(command: Command | None, entities: Sequence[Entity]) -> str:
    """The states of the devices that were asked for."""
    targets = command.targets if command is not None else ()
    found = [e for e in entities if not targets or any(_is_meant(e, one) for one in targets)]
    if not found:
        return "I do not find that device."
    wanted = command.wanted if command is not None else None
    if wanted is not None and len(found) > 1:
        alike = [entity for entity in found if entity.state == wanted]
        if not alike:
            return f"None of them is {wanted}."
        names = _listed(entity.name for entity in alike[:MAX_DEVICES])
        return f"{names} {'is' if len(alike) == 1 else 'are'} {wanted}."
    return " ".join(_state(entity) for entity in found[:MAX_DEVICES])


def _is_meant(entity: Entity, target: Target) -> bool:
    if target.name is not None:
        return target.name in entity.names and (not target.area or target.area in entity.areas)
    return (not target.domains or entity.domain in target.domains) and (
        target.area is None or target.area in entity.areas
    )


def _state(entity: Entity) -> str:
    details = dict(entity.details)
    unit = details.get("unit", "")
    said = f"{entity.name} is {entity.state or 'unknown'}{' ' + unit if unit else ''}"
    more = [form.format(details[key]) for key, form in _DETAILS.items() if key in details]
    return ", ".join([said, *more]) + "."


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
