"""Languages of short texts."""

from __future__ import annotations

import pytest

from edgeagent.routing.language import language_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the weather in Rome?", "en"),
        ("please turn on the lights", "en"),
        ("Wie wird das Wetter morgen in Rom?", "de"),
        ("Schalte bitte das Licht im Wohnzimmer ein", "de"),
        ("Quel temps fait-il dans la ville de Lyon ?", "fr"),
        ("¿Cuál es el tiempo en la ciudad de Madrid?", "es"),
        ("Che tempo fa nella città di Roma?", "it"),
        ("Qual é o tempo na cidade do Porto?", "pt"),
        ("Wat is het weer in de stad Utrecht?", "nl"),
        ("какая погода в Москве", "ru"),
        ("яка погода у Києві сьогодні", "uk"),
        ("今日の天気は何ですか", "ja"),
        ("今天天气怎么样", "zh"),
        ("오늘 날씨 어때", "ko"),
        ("ما هو الطقس اليوم", "ar"),
        ("τι καιρό κάνει", "el"),
        ("", None),
        ("12345 !?", None),
        ("Qwerty zxcvb asdfg hjklm", None),
    ],
)
def test_the_language_of_a_text(text, expected):
    assert language_of(text) == expected
