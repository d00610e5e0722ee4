"""`installed.toml` of this version and of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.catalog.install_record import InstalledModel, parse_record
from edgeagent.types.engine_flags import CacheFlags
from edgeagent.types.template import TemplateFacts

OLD = 'id = "tale"\nfile = "tale.gguf"\n'


@pytest.mark.parametrize(
    "problem", [None, "no\nway", 'quoted "x" \\', "\x1b[2J\x7f\x00", "emoji \U0001f600 and \u2028"]
)
def test_a_record_reads_back_as_it_was_written(problem):
    model = InstalledModel(
        id="tale",
        file="tale.gguf",
        source="path:/media/\U0001f600/tale.gguf",
        template_file="chat-template-00000000.jinja",
        extra={"chat-template-00000000.jinja": "a" * 64},
        thresholds={"all": 0.5},
        engine=CacheFlags(kv_type="q8_0"),
        template=TemplateFacts(source="built-in", prefill=True, problem=problem),
    )
    assert parse_record(model.to_toml(), Path()) == model
    assert model.template_file_sha256 == "a" * 64


@pytest.mark.parametrize(
    ("table", "facts"),
    [
        ("", None),
        ("template = 3\n", None),
        ("[template]\n", TemplateFacts()),
        ('[template]\nsource = "from the future"\n', None),
        ('[template]\nsource = "model"\nsystem = "yes"\n', None),
        ('[template]\nsource = "model"\nsystem = true\nlater = [1]\n',
         TemplateFacts(source="model", system=True)),
    ],
)  # fmt: skip
def test_records_of_other_versions_keep_their_models(table, facts):
    model = parse_record(OLD + "later = 1\n" + table, Path())
    assert (model.id, model.template, model.template_file) == ("tale", facts, None)
