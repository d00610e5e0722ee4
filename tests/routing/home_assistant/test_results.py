"""What Home Assistant returns, in words."""

from __future__ import annotations

import json

import pytest

from edgeagent.routing.home_assistant.results import told
from tests.routing.home_assistant.test_commands import ALL

DONE = {"speech": {}, "response_type": "action_done", "data": {"success": [], "failed": []}}
LIVE = """Live Context: An overview of the areas and the devices in this smart home:
- names: Garage Door
  domain: cover
  state: open
  areas: Garage
- names: Kitchen Light
  domain: light
  state: 'on'
  areas: Kitchen
- names: Desk Lamp
  domain: light
  state: 'off'
- names: Bedroom Temperature
  domain: sensor
  state: '19.5'
  areas: Bedroom
  attributes:
    unit_of_measurement: °C
"""


@pytest.mark.parametrize(
    ("asked", "result", "said"),
    [
        ("turn on the kitchen light", DONE, "Turned on Kitchen Light."),
        ("turn on the kitchen light", {"data": DONE, "error": None}, "Turned on Kitchen Light."),
        ("dim the desk lamp to 20%", DONE, "Set Desk Lamp to 20 percent."),
        (
            "set a timer for ten minutes",
            DONE | {"speech": {"plain": {"speech": "Timer started"}}},
            "Timer started",
        ),
        (
            "turn on the kitchen light",
            {"error": "MatchFailedError", "error_text": "no entity"},
            "That did not work: no entity.",
        ),
        (
            "turn on the kitchen light",
            DONE | {"data": {"success": [], "failed": [{"name": "Kitchen Light"}]}},
            "That did not work: no answer from Kitchen Light.",
        ),
        (
            "what time is it",
            {"success": True, "result": {"date": "2026-11-27", "time": "14:05:09"}},
            "It is 14:05.",
        ),
        (
            "what day is it",
            {"success": True, "result": {"date": "2026-11-27", "time": "14:05:09"}},
            "It is Friday, 27 November 2026.",
        ),
        ("is the garage door open?", {"success": True, "result": LIVE}, "Garage Door is open."),
        ("are any lights on", {"success": True, "result": LIVE}, "Kitchen Light is on."),
        (
            "what's the temperature in the bedroom",
            {"success": True, "result": LIVE},
            "Bedroom Temperature is 19.5 °C.",
        ),
        (
            "what's on the shopping list",
            {"success": True, "result": [{"summary": "milk"}, {"summary": "eggs"}]},
            "There is milk, eggs.",
        ),
        ("turn on the kitchen light", "plain words", '"plain words"'),
    ],
)
def test_a_result_is_told_as_a_sentence(asked, result, said):
    assert told(ALL.read(asked), [json.dumps(result)]) == said


def test_several_results_are_told_once_each():
    command = ALL.read("turn on the kitchen light and the desk lamp")
    assert told(command, [json.dumps(DONE)] * 2) == "Turned on Kitchen Light and Desk Lamp."
