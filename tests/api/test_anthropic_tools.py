"""Tools that Anthropic's models know by their types: run by the client as functions, or left out."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from edgeagent.api.anthropic.schemas import MessagesRequest
from edgeagent.errors import InvalidParameter, UnsupportedParameter
from edgeagent.types.caller import LOCAL
from edgeagent.types.tools import Tool
from tests.conftest import SHALLOW, DaemonProcess
from tests.lazy import lazily

anthropic = lazily("anthropic")

ASK: list[Any] = [{"role": "user", "content": "List the files."}]
BASH = {"type": "bash_20250124", "name": "bash"}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
EDITOR = "str_replace_based_edit_tool"
SERVER = {"type": "url", "url": "https://example.com/mcp", "name": "m", "authorization_token": "x"}


def asked(**body: Any) -> MessagesRequest:
    return MessagesRequest.model_validate({"model": "m", "max_tokens": 5, "messages": ASK} | body)


def tool_of(tool: dict[str, Any]) -> Tool:
    (found,) = asked(tools=[tool]).tool_offer().tools
    return found


@pytest.mark.parametrize(
    ("tool", "call", "wrong"),
    [
        (BASH, {"command": "ls"}, {"command": 5}),
        (BASH | {"cache_control": {"type": "ephemeral"}}, {"restart": True}, {"restart": "yes"}),
        ({"type": "bash_20241022", "name": "bash"}, {"command": "ls"}, {"command": []}),
        ({"type": "text_editor_20250124", "name": "str_replace_editor"},
         {"command": "undo_edit", "path": "/a"}, {"command": "view"}),
        ({"type": "text_editor_20250728", "name": EDITOR, "max_characters": 9000},
         {"command": "view", "path": "/a", "view_range": [1, -1]}, {"command": "undo_edit", "path": "/a"}),
        ({"type": "text_editor_20250429", "name": EDITOR},
         {"command": "insert", "path": "/a", "insert_line": 0, "insert_text": "x"},
         {"command": "insert", "path": "/a", "insert_line": -1}),
        ({"type": "computer_20250124", "name": "computer", "display_width_px": 1024,
          "display_height_px": 768, "display_number": 1},
         {"action": "scroll", "coordinate": [1, 2], "scroll_direction": "up", "scroll_amount": 2},
         {"action": "left_click", "coordinate": [1]}),
        ({"type": "computer_20251124", "name": "computer", "display_width_px": 1024,
          "display_height_px": 768, "enable_zoom": True},
         {"action": "zoom", "region": [0, 0, 5, 5]}, {"action": "fly"}),
        ({"type": "computer_20241022", "name": "computer"}, {"action": "screenshot"}, {"action": "scroll"}),
        ({"type": "memory_20250818", "name": "memory"},
         {"command": "rename", "old_path": "/memories/a", "new_path": "/memories/b"}, {"command": "grep"}),
    ],
)  # fmt: skip
def test_a_tool_that_the_client_runs_is_a_function(tool, call, wrong):
    found = tool_of(tool)
    assert found.name == tool["name"] and found.description and not found.is_strict
    jsonschema.Draft202012Validator.check_schema(found.parameters)
    jsonschema.validate(call, found.parameters)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, found.parameters)


def test_a_desktop_says_its_size():
    told = tool_of(
        {"type": "computer_20250124", "name": "computer", "display_width_px": 800, "display_height_px": 600}
    )  # fmt: skip
    assert "800 by 600" in (told.description or "")


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": [SEARCH]}, {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
        {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]},
        {"tools": [{"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}]},
        {"tools": [{"type": "mcp_toolset", "mcp_server_name": "m"}], "mcp_servers": [SERVER]},
        {"mcp_servers": [SERVER]},
    ],
)  # fmt: skip
def test_what_runs_on_anthropics_servers_is_left_out_and_never_required(extra):
    body = asked(**extra)
    assert body.tool_use(LOCAL) is None
    assert body.tool_offer().notes and "left out" in body.tool_offer().notes[0]
    assert "authorization_token" not in str(body.tool_offer().notes)
    with pytest.raises(InvalidParameter, match="tool_choice"):
        asked(**extra, tool_choice={"type": "any"}).tool_use(LOCAL)
    mixed = asked(tools=[BASH, *extra.get("tools", [])], tool_choice={"type": "any"})
    used = mixed.tool_use(LOCAL)
    assert used is not None and [tool.name for tool in used.tools] == ["bash"]


def test_a_choice_of_a_tool_that_runs_elsewhere_is_refused():
    choice = {"type": "tool", "name": "web_search"}
    with pytest.raises(UnsupportedParameter, match="web_search_20250305"):
        asked(tools=[BASH, SEARCH], tool_choice=choice).tool_use(LOCAL)


def test_claude_calls_its_shell_and_hears_what_was_left_out(shallow_daemon: DaemonProcess):
    with anthropic.Anthropic(base_url=shallow_daemon.url, api_key="none", max_retries=0) as claude:
        made = claude.messages.create(
            model=SHALLOW, max_tokens=40, messages=ASK, tools=[BASH, SEARCH],  # type: ignore[list-item]
            tool_choice={"type": "tool", "name": "bash"},
        )  # fmt: skip
    (block,) = made.content
    assert block.type == "tool_use" and block.name == "bash" and isinstance(block.input, dict)
    assert any("web_search" in note for note in made.edgeagent["notes"])  # type: ignore[attr-defined]
