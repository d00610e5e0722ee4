"""A home as Home Assistant's Assist gives it to a model: its list of devices, and its tools as its
integrations serialize them."""

from __future__ import annotations

from typing import Any

HOME = """You are a voice assistant for Home Assistant.
Answer questions about the world truthfully.
Answer in plain text. Keep it simple and to the point.
When controlling Home Assistant always call the intent tools. Use HassTurnOn to lock and HassTurnOff to \
unlock a lock. When controlling a device, prefer passing just name and domain. When controlling an area, \
prefer passing just area name and domain.
When a request names a generic device without an area, ask the user to specify which area they mean.
Static Context: An overview of the areas and the devices in this smart home:
- names: Bedroom Blinds
  domain: cover
  areas: Bedroom
- names: Bedroom Ceiling Light
  domain: light
  areas: Bedroom
- names: Bedroom Temperature
  domain: sensor
  areas: Bedroom
- names: Bedside Lamp
  domain: light
  areas: Bedroom
- names: Ceiling Fan
  domain: fan
  areas: Bedroom
- names: Coffee Maker, Coffee machine
  domain: switch
  areas: Kitchen
- names: Desk Lamp
  domain: light
  areas: Office, Study
- names: Forecast Home
  domain: weather
- names: Front Door
  domain: lock
  areas: Hallway
- names: Garage Door
  domain: cover
  areas: Garage
- names: Kitchen Light
  domain: light
  areas: Kitchen
- names: Living Room Blinds
  domain: cover
  areas: Living Room
- names: Living Room Lamp, Big lamp
  domain: light
  areas: Living Room
- names: Movie Night
  domain: scene
- names: Rosie
  domain: vacuum
- names: Shopping List
  domain: todo
- names: Thermostat
  domain: climate
  areas: Living Room
- names: TV, Television
  domain: media_player
  areas: Living Room
"""

STRINGS = {"type": "array", "items": {"type": "string"}}
TEXT = {"type": "string"}
PLACE = {"name": TEXT, "area": TEXT, "floor": TEXT}
ANY = PLACE | {"domain": STRINGS}
PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
WHOLE = {"type": "integer", "minimum": 0}
PARTS = {"hours": WHOLE, "minutes": WHOLE, "seconds": WHOLE}
STARTED = {"start_hours": WHOLE, "start_minutes": WHOLE, "start_seconds": WHOLE}
TIMER = STARTED | {"name": TEXT, "area": TEXT}

SLOTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "HassTurnOn": (ANY | {"device_class": STRINGS}, []),
    "HassTurnOff": (ANY | {"device_class": STRINGS}, []),
    "HassSetPosition": (ANY | {"device_class": STRINGS, "position": PERCENT}, ["position"]),
    "HassStopMoving": (ANY | {"device_class": STRINGS}, []),
    "HassLightSet": (ANY | {"color": TEXT, "temperature": WHOLE, "brightness": PERCENT}, []),
    "HassClimateSetTemperature": (PLACE | {"temperature": {"type": "number"}}, ["temperature"]),
    "HassFanSetSpeed": (ANY | {"percentage": PERCENT}, ["percentage"]),
    "HassMediaPause": (ANY, []),
    "HassMediaUnpause": (ANY, []),
    "HassMediaNext": (ANY, []),
    "HassMediaPrevious": (ANY, []),
    "HassSetVolume": (ANY | {"volume_level": PERCENT}, ["volume_level"]),
    "HassSetVolumeRelative": (
        PLACE
        | {
            "volume_step": {
                "anyOf": [
                    {"type": "string", "enum": ["up", "down"]},
                    {"type": "integer", "minimum": -100, "maximum": 100},
                ]
            }
        },
        ["volume_step"],
    ),
    "HassMediaPlayerMute": (ANY, []),
    "HassMediaPlayerUnmute": (ANY, []),
    "HassStartTimer": (PARTS | {"name": TEXT, "conversation_command": TEXT}, []),
    "HassCancelTimer": (TIMER, []),
    "HassCancelAllTimers": ({"area": TEXT}, []),
    "HassIncreaseTimer": (PARTS | TIMER, []),
    "HassDecreaseTimer": (PARTS | TIMER, []),
    "HassPauseTimer": (TIMER, []),
    "HassUnpauseTimer": (TIMER, []),
    "HassTimerStatus": (TIMER, []),
    "HassListAddItem": ({"item": TEXT, "name": TEXT}, ["item", "name"]),
    "HassListCompleteItem": ({"item": TEXT, "name": TEXT}, ["item", "name"]),
    "HassVacuumStart": (ANY, []),
    "HassVacuumReturnToBase": (ANY, []),
    "HassBroadcast": ({"message": TEXT}, ["message"]),
    "GetDateTime": ({}, []),
    "todo_get_items": (
        {
            "todo_list": {"type": "string", "enum": ["Shopping List"]},
            "status": {
                "type": "string",
                "enum": ["needs_action", "completed", "all"],
                "default": "needs_action",
            },
        },
        ["todo_list"],
    ),
    "GetLiveContext": ({}, []),
}


def schema(name: str) -> dict[str, Any]:
    properties, required = SLOTS[name]
    return {"type": "object", "properties": properties, "required": required}


def functions(names: list[str] | None = None) -> list[dict[str, Any]]:
    """The tools as chat completions and Ollama have them."""
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": f"Execute Home Assistant {name} intent",
                "parameters": schema(name),
            },
        }
        for name in names or list(SLOTS)
    ]
