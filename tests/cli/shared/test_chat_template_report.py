"""Chat templates at the command line: what is said of them, and installing one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeagent.catalog.install_record import InstalledModel
from edgeagent.cli.shared.chat_template_report import printable, warning_of
from edgeagent.types.template import TemplateFacts
from tests.cli.conftest import one_line

GOOD = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (None, None),
        (TemplateFacts(source="model", system=True), None),
        (TemplateFacts(source="installed"), None),
        (TemplateFacts(problem="the file has none"), "chats are refused, completions work"),
        (TemplateFacts(source="model", problem="TemplateError: no\x1b[2J\nway"),
         "(TemplateError: no [2J way); edgeagent has none for its vocabulary: chats are refused"),
        (TemplateFacts(source="built-in", problem="the file has none"),
         "(the file has none); edgeagent's own for its family is used"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_told_in_one_line_with_the_way_out(facts, said):
    line = warning_of(InstalledModel(id="tale", file="tale.gguf", template=facts))
    if said is None:
        assert line is None
    else:
        assert line is not None and said in line and printable(line) == line
        assert "`edgeagent models install tale --chat-template FILE`" in line


@pytest.mark.process
def test_a_broken_file_is_refused_in_one_line_before_anything_is_fetched(edgeagent, tmp_path: Path):
    file = tmp_path / "broken.jinja"
    file.write_text("{% for m in messages %}\n\n{{ m.content }")
    # The model would come from the network, which no test has.
    line = one_line(
        edgeagent(
            "models", "install", "qwen2.5-0.5b-instruct", "--chat-template", file,
            "--models-dir", tmp_path / "models", "--state-dir", tmp_path / "state",
        )
    )  # fmt: skip
    assert "(line 3 of the template)" in line and "broken.jinja" in line


@pytest.mark.process
def test_what_a_template_can_is_learnt_kept_shown_and_changed(
    edgeagent, stories: Path, tmp_path: Path
):
    where = ("--models-dir", tmp_path / "models", "--state-dir", tmp_path / "state")
    file = tmp_path / "good.jinja"
    file.write_text(GOOD)

    def known() -> dict[str, object]:
        (found,) = json.loads(edgeagent("models", "list", "--json", *where).stdout)
        return found

    done = edgeagent("models", "install", stories, "--as", "tale", *where)
    assert done.returncode == 0 and "cannot be used (the file has none)" in done.stderr
    assert known()["template"]["problem"] == "the file has none"

    done = edgeagent("models", "install", "tale", "--chat-template", file, *where)
    assert done.returncode == 0 and "cannot be used" not in done.stderr, done.stderr
    found = known()
    assert found["template"]["source"] == "installed" and found["template"]["late_system"]
    assert found["template_file"] in {path.name for path in (tmp_path / "models/tale").iterdir()}

    lines = edgeagent("models", "list", "--verbose", *where).stdout.splitlines()
    (head,) = (line.split() for line in lines if "chat template" in line)
    (row,) = (line.split() for line in lines if "installed" in line)
    assert head[3:] == ["system", "turns", "tools", "results", "thinking", "prefill"]
    assert row == ["tale", "installed", "anywhere", "any", "told", "told", "no", "yes"]


@pytest.mark.process  # installing starts the process that tries templates
def test_a_template_needs_a_model_that_chats(edgeagent, tmp_path: Path):
    file = tmp_path / "good.jinja"
    file.write_text(GOOD)
    where = ("--models-dir", tmp_path / "models", "--state-dir", tmp_path / "state")
    done = edgeagent("models", "install", "--chat-template", file, *where)
    assert done.returncode == 2 and "need a MODEL" in done.stderr
    done = edgeagent("models", "install", "all-minilm-l6-v2", "--chat-template", file, *where)
    assert done.returncode == 2 and "does not generate text" in done.stderr
