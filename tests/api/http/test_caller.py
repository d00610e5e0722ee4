"""What a request may ask for by the key it comes with."""

from __future__ import annotations

import pytest

from edgeagent.api.http.caller import bounded_priority
from edgeagent.types.caller import LOCAL, Caller


@pytest.mark.parametrize(
    ("scopes", "asked", "given"),
    [
        ({"chat"}, 100, 0),
        ({"chat"}, 0, 0),
        ({"chat"}, -7, -7),
        ({"chat"}, None, 0),
        ({"chat", "data", "embeddings", "transcribe"}, 1, 0),
        ({"chat", "models"}, 100, 100),
        ({"chat", "admin"}, 100, 100),
        ({"chat", "admin"}, None, 0),
        (LOCAL.scopes, 5, 5),
    ],
)
def test_only_keys_that_run_the_machine_come_before_others(scopes, asked, given):
    caller = Caller(key_id="k", owner="o", scopes=frozenset(scopes))
    assert bounded_priority(caller, asked) == given
