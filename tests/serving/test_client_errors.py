"""What clients are told of errors, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.errors import EdgeAgentError, ModelUnusable
from edgeagent.serving import client_errors
from edgeagent.serving.client_errors import client_error, hide_folders, public


@pytest.fixture(autouse=True)
def folders(monkeypatch):
    monkeypatch.setattr(client_errors, "_HIDDEN", [])
    hide_folders([Path("/srv/models"), Path("/srv/models/extra"), Path("/")])


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("/srv/models/a.gguf is damaged", "a.gguf is damaged"),
        ("/srv/models/extra/a.gguf is damaged", "a.gguf is damaged"),
        ("cannot read /srv/models", "cannot read its folder"),
        ("a / b", "a / b"),
    ],
)
def test_folders_of_the_device_are_left_out_of_messages(message, shown):
    assert public(message) == shown


def test_our_own_errors_are_shown_without_folders_and_others_not_at_all(caplog):
    own = client_error(ModelUnusable("/srv/models/a.gguf is damaged: install it again."))
    assert (own.code, own.message) == ("model_unusable", "a.gguf is damaged: install it again.")
    other = client_error(KeyError("a secret"))
    assert type(other) is EdgeAgentError and "secret" not in other.message
    assert "unforeseen KeyError" in caplog.text
