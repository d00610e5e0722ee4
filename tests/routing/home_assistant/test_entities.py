"""Lists of devices as clients write them."""

from __future__ import annotations

import pytest

from edgeagent.routing.home_assistant.entities import Entity, entities_in


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "Static Context:\n- names: Kitchen Light, Big light\n  domain: light\n  areas: Kitchen, Galley\n",
            [Entity(("Kitchen Light", "Big light"), "light", ("Kitchen", "Galley"))],
        ),
        (
            "- names: 'Anna''s Lamp'\n  domain: light\n- names: \"K\\xFCche\"\n  domain: light\n",
            [Entity(("Anna's Lamp",), "light"), Entity(("Küche",), "light")],
        ),
        (
            "- names: A name that is longer\n    than a line\n  domain: switch\n",
            [Entity(("A name that is longer than a line",), "switch")],
        ),
        (
            "light.old:\n  names: Old lamp\n  state: 'on'\n  areas: Attic\n",
            [Entity(("Old lamp",), "light", ("Attic",), state="on")],
        ),
        (
            "entity_id,name,state,aliases\nlight.csv,CSV Light,off,one/two\n",
            [Entity(("CSV Light", "one", "two"), "light", state="off")],
        ),
        ("light.kitchen 'Kitchen Light' = off;50%\n", [Entity(("Kitchen Light",), "light")]),
        (
            "- names: Heat\n  domain: climate\n  state: heat\n  attributes:\n    current_temperature: '20'\n",
            [Entity(("Heat",), "climate", state="heat", details=(("current_temperature", "20"),))],
        ),
        ("You are kind.\nExample: do this\nname: nobody\n\n- a: b\n", []),
        ("", []),
    ],
    ids=["list", "quotes", "folded", "by id", "csv", "lines", "state", "prose", "nothing"],
)
def test_a_list_of_devices(text, found):
    assert entities_in(text) == found


def test_a_huge_list_is_read_in_part():
    text = "".join(f"- names: Lamp {n}\n  domain: light\n" for n in range(30_000))
    assert 0 < len(entities_in(text)) < 30_000
