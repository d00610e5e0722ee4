"""Requests to a smart home in everyday words, and the call that each asks for.

`DEVELOPMENT` was at hand while the sentences of the shipped mapping were written; `HELD_OUT` was written
before them and only measured afterwards. A text may be understood in several ways: any of the calls is right.
"""

from __future__ import annotations

from typing import Any

Call = tuple[str, dict[str, Any]]

KITCHEN: list[Call] = [
    ("HassTurnOn", {"name": "Kitchen Light"}),
    ("HassTurnOn", {"area": "Kitchen", "domain": ["light"]}),
]

# "turn on the kitchen light" in thirty ways.
DEVELOPMENT = [
    "turn on the kitchen light",
    "Turn on the kitchen light.",
    "turn the kitchen light on",
    "switch on the kitchen light",
    "Switch the kitchen light on please",
    "please turn on the light in the kitchen",
    "can you turn on the kitchen light?",
    "could you please switch on the lights in the kitchen",
    "kitchen light on",
    "kitchen lights on please",
    "lights on in the kitchen",
    "TURN ON KITCHEN LIGHT!!!",
    "hey, turn on the kitchen lights",
    "I want the kitchen light on",
    "i'd like the light in the kitchen turned on",
    "put the kitchen light on",
    "make the kitchen light turn on",
    "activate the kitchen light",
    "enable the light in the kitchen",
    "power on the kitchen lamp",
    "flip on the kitchen light",
    "light up the kitchen",
    "illuminate the kitchen",
    "turn on teh kitchen ligth",
    "trun on the kitchn light",
    "would you mind turning on the kitchen light",
    "let's have some light in the kitchen",
    "give me some light in the kitchen",
    "set the kitchen light to on",
    "turn on the lights in my kitchen, thanks",
]

_OFF: list[Call] = [
    ("HassTurnOff", {"name": "Kitchen Light"}),
    ("HassTurnOff", {"area": "Kitchen", "domain": ["light"]}),
]

HELD_OUT: list[tuple[str, list[Call]]] = [
    ("Could you get the kitchen light on for me?", KITCHEN),
    ("start the kitchen light", KITCHEN),
    ("turn the light in the kitchen on right now", KITCHEN),
    ("we need the kitchen light on", KITCHEN),
    ("it's too dark in the kitchen", KITCHEN),
    ("kitchen light, please", KITCHEN),
    ("hit the lights in the kitchen", KITCHEN),
    ("can i have the kitchen light on", KITCHEN),
    ("turn off the kitchen light", _OFF),
    ("kill the lights in the kitchen", _OFF),
    ("shut the kitchen light off", _OFF),
    ("lights out in the kitchen please", _OFF),
    ("the kitchen light should be off", _OFF),
    ("switch off the bedside lamp", [("HassTurnOff", {"name": "Bedside Lamp"})]),
    ("turn the big lamp off", [("HassTurnOff", {"name": "Living Room Lamp"})]),
    ("turn off all the lights", [("HassTurnOff", {"domain": ["light"]})]),
    ("turn off everything in the bedroom", [("HassTurnOff", {"area": "Bedroom"})]),
    ("turn on the coffee maker", [("HassTurnOn", {"name": "Coffee Maker"})]),
    ("start the coffee machine please", [("HassTurnOn", {"name": "Coffee Maker"})]),
    ("activate movie night", [("HassTurnOn", {"name": "Movie Night"})]),
    ("set the scene movie night", [("HassTurnOn", {"name": "Movie Night"})]),
    ("open the garage", [("HassTurnOn", {"name": "Garage Door"})]),
    ("close the garage door", [("HassTurnOff", {"name": "Garage Door"})]),
    ("lower the bedroom blinds", [("HassTurnOff", {"name": "Bedroom Blinds"}),
                                  ("HassTurnOff", {"area": "Bedroom", "domain": ["cover"]})]),
    ("pull up the blinds in the living room", [
        ("HassTurnOn", {"name": "Living Room Blinds"}),
        ("HassTurnOn", {"area": "Living Room", "domain": ["cover"]})]),
    ("set the living room blinds to 30%", [
        ("HassSetPosition", {"name": "Living Room Blinds", "position": 30}),
        ("HassSetPosition", {"area": "Living Room", "domain": ["cover"], "position": 30})]),
    ("open the bedroom blinds halfway", [
        ("HassSetPosition", {"name": "Bedroom Blinds", "position": 50})]),
    ("lock the front door", [("HassTurnOn", {"name": "Front Door"})]),
    ("unlock the front door please", [("HassTurnOff", {"name": "Front Door"})]),
    ("make sure the front door is locked", [("HassTurnOn", {"name": "Front Door"})]),
    ("dim the desk lamp to twenty percent", [
        ("HassLightSet", {"name": "Desk Lamp", "brightness": 20})]),
    ("set the brightness of the kitchen light to 75", [
        ("HassLightSet", {"name": "Kitchen Light", "brightness": 75})]),
    ("bedside lamp to 10 percent", [("HassLightSet", {"name": "Bedside Lamp", "brightness": 10})]),
    ("make the desk lamp blue", [("HassLightSet", {"name": "Desk Lamp", "color": "blue"})]),
    ("change the living room lamp to green", [
        ("HassLightSet", {"name": "Living Room Lamp", "color": "green"})]),
    ("set the thermostat to 21.5 degrees", [
        ("HassClimateSetTemperature", {"name": "Thermostat", "temperature": 21.5})]),
    ("make it 22 degrees in the living room", [
        ("HassClimateSetTemperature", {"name": "Thermostat", "temperature": 22}),
        ("HassClimateSetTemperature", {"area": "Living Room", "temperature": 22})]),
    ("turn the heating up to 23", [
        ("HassClimateSetTemperature", {"name": "Thermostat", "temperature": 23})]),
    ("set the ceiling fan to 40 percent", [
        ("HassFanSetSpeed", {"name": "Ceiling Fan", "percentage": 40})]),
    ("pause the music", [("HassMediaPause", {})]),
    ("resume the tv", [("HassMediaUnpause", {"name": "TV"})]),
    ("skip this song", [("HassMediaNext", {})]),
    ("go back to the previous track", [("HassMediaPrevious", {})]),
    ("set the tv volume to 30 percent", [("HassSetVolume", {"name": "TV", "volume_level": 30})]),
    ("turn the volume up", [("HassSetVolumeRelative", {"volume_step": "up"})]),
    ("make the tv quieter", [("HassSetVolumeRelative", {"name": "TV", "volume_step": "down"})]),
    ("mute the tv", [("HassMediaPlayerMute", {"name": "TV"})]),
    ("set a timer for ten minutes", [("HassStartTimer", {"minutes": 10})]),
    ("start a 1 hour 30 minute pizza timer", [
        ("HassStartTimer", {"hours": 1, "minutes": 30, "name": "pizza"})]),
    ("remind me in half an hour with a timer", [("HassStartTimer", {"minutes": 30})]),
    ("cancel the timer", [("HassCancelTimer", {})]),
    ("stop all timers", [("HassCancelAllTimers", {})]),
    ("pause my pizza timer", [("HassPauseTimer", {"name": "pizza"})]),
    ("how much time is left on the timer", [("HassTimerStatus", {})]),
    ("add five minutes to the timer", [("HassIncreaseTimer", {"minutes": 5})]),
    ("add oat milk to my shopping list", [
        ("HassListAddItem", {"item": "oat milk", "name": "Shopping List"})]),
    ("put eggs on the shopping list please", [
        ("HassListAddItem", {"item": "eggs", "name": "Shopping List"})]),
    ("send the vacuum home", [("HassVacuumReturnToBase", {"name": "Rosie"})]),
    ("start vacuuming", [("HassVacuumStart", {})]),
    ("what time is it", [("GetDateTime", {}), ("HassGetCurrentTime", {})]),
    ("is the garage door open?", [("GetLiveContext", {}), ("HassGetState", {"name": "Garage Door"})]),
    ("what's the temperature in the bedroom", [("GetLiveContext", {}), ("HassGetState", {})]),
]  # fmt: skip

# What calls nothing: asked, reported, denied, conditional, quoted, of another device, or not of a home.
REFUSED = [
    "don't turn on the kitchen light",
    "never turn on the kitchen light",
    "why did you turn on the kitchen light",
    "who turned the kitchen light on",
    "should I turn on the kitchen light",
    "how do I turn on the kitchen light",
    "if it rains turn on the kitchen light",
    "turn on the kitchen light when I get home",
    "turn on the kitchen light at 7 pm",
    "turn on the kitchen light for ten minutes",
    "do not unlock the front door",
    "turn on the sauna",
    "turn on the attic light",
    "turn on the kitchen light 2",
    "unlock the back door",
    'translate "turn on the kitchen light" to French',
    "write a poem about turning on the kitchen light",
    "the kitchen light is on",
    "I turned on the kitchen light",
    "is it a good idea to open the garage door",
    "tell me a joke",
    "what is the capital of France",
    "play chess with me",
    "set the thermostat to 900 percent",
    "dim the kitchen light to 150 percent",
    "turn on",
    "kitchen",
    "the light",
]
