"""Chat templates on the command line: what they support, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from edgeagent.catalog.chat_template import ChatTemplate, read_template
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.engine.prompt.template_check import check_template
from edgeagent.types.template import TemplateFacts

_SOURCES = {"model": "its own", "installed": "installed", "built-in": "edgeagent's"}
_COLUMNS = ("system", "turns", "tools", "results", "thinking", "prefill")


def given_template(path: Path | None) -> ChatTemplate | None:
    """The chat template in a file, tested by rendering a question. Raises: InstallFailed."""
    if path is None:
        return None
    template = read_template(path)
    check_template(template.text, str(path))
    return template


def warning_of(model: InstalledModel) -> str | None:
    """A warning about a missing or broken chat template; None if it works."""
    facts = model.template
    if facts is None or facts.problem is None:
        return None
    used = (
        "edgeagent's own for its family is used"
        if facts.can_chat
        else "edgeagent has none for its vocabulary: chats are refused, completions work"
    )
    return (
        f"The chat template of {model.id} cannot be used ({printable(facts.problem)}); {used}. "
        f"`edgeagent models install {model.id} --chat-template FILE` gives it another."
    )


def template_table(models: list[InstalledModel]) -> Table:
    """One row per model: the source of its chat template, and what the template supports.

    edgeagent adapts to what it does not support: system messages move into the first user message,
    consecutive messages of one role are joined, tools are described in the prompt.
    """
    table = Table("id", "chat template", *_COLUMNS, box=None, pad_edge=False)
    for model in models:
        table.add_row(model.id, _source(model), *_abilities(model.template))
    return table


def _source(model: InstalledModel) -> str:
    facts = model.template
    if facts is None:
        return "installed" if model.template_file is not None else "not tried"
    if not facts.can_chat:
        return "broken" if facts.source is not None else "none"
    return _SOURCES[str(facts.source)]


def _abilities(facts: TemplateFacts | None) -> list[str]:
    if facts is None or not facts.can_chat:
        return [""] * len(_COLUMNS)
    shown = facts.thinking, facts.prefill
    thinking, prefill = ("yes" if one else "no" for one in shown)
    return [
        ("anywhere" if facts.late_system else "first") if facts.system else "folded",
        "any" if facts.neighbours and facts.assistant_first else "joined",
        facts.call_syntax if facts.tools else "told",
        "yes" if facts.tool_results else "told",
        "always" if facts.reasoning and not facts.thinking else thinking,
        prefill,
    ]


def as_json(model: InstalledModel, state: str) -> dict[str, Any]:
    """One model for `models list --json`."""
    facts = model.template
    template = msgspec.to_builtins(facts) if facts is not None else None
    if template is not None:
        del template["type"]
    return {
        "id": model.id,
        "file": str(model.path),
        "quant": model.quant,
        "size_bytes": model.size_bytes,
        "sha256": model.sha256,
        "source": model.source,
        "state": state,
        "template_sha256": model.template_sha256,
        "template_file": model.template_file,
        "template_file_sha256": model.template_file_sha256,
        "template": template,
    }


def printable(text: str) -> str:
    """A foreign text on one line, without characters that a terminal interprets."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
