"""A chat template that somebody gives is tried before anything is done with it."""

from __future__ import annotations

import pytest

from edgeagent.engine.prompt.template_check import check_template
from edgeagent.errors import InstallFailed


def test_a_template_that_renders_a_question_is_taken():
    check_template("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}", "x.jinja")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}\n\n{{ m.content }", r"unexpected '}' \(line 3 of the template\)"),
        ("a\n{{ raise_exception('none\nof \x1b[2Jit') }}", r"none of \[2Jit \(line 2 of"),
        ("{% macro f(x) %}\n\n{{ x.a.b }}{% endmacro %}\n{{ f(1) }}", r"'a' \(line 3 of"),
        ("always the same", "leaves out what a user says"),
        ("{{ messages | nothing }}", r"No filter named 'nothing'. \(line 1 of"),
        ("{{ 1 / 0 }}", r"division by zero \(line 1 of"),
        ("\n{% include 'passwd' %}", r"\(line 2 of"),
    ],
)
def test_a_broken_one_is_refused_with_its_error_and_line(text, said):
    with pytest.raises(InstallFailed, match=rf"x\.jinja is refused: .*{said}") as refused:
        check_template(text, "x.jinja")
    assert refused.value.message.isprintable()
