"""The template process: what honest templates need works, and what hostile ones try does not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeagent.engine.prompt.template_client import TemplateHost
from edgeagent.errors import TemplateFailed, Unavailable

MESSAGES = [{"role": "user", "content": "Grüße <b>"}]


@contextmanager
def host(template: str, timeout_s: float = 1.0) -> Iterator[TemplateHost]:
    host = TemplateHost(template, timeout_s)
    try:
        yield host
    finally:
        host.close()
        host.close()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{% endfor %}", "<user>Grüße <b>"),
        ("{{ bos_token }}{{ messages | tojson }}", '<s>[{"role": "user", "content": "Grüße <b>"}]'),
        ("{% for m in messages %}\n  {{ m.role }}\n{% endfor %}", "  user\n"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i > 3 %}{% break %}{% endif %}"
         "{% set ns.n = i %}{% endfor %}{{ ns.n }}", "3"),
        ("{% generation %}", None),
        ("{{ raise_exception('Roles must alternate') }}", None),
        ("{{ messages[5].content.x }}", None),
    ],
)  # fmt: skip
def test_templates_render_as_their_authors_expect_or_say_why_not(template, expected):
    with host(template) as template_host:
        if expected is not None:
            variables = {"messages": MESSAGES, "bos_token": "<s>"}
            assert template_host.render(variables) == expected
            assert template_host.render(variables) == expected  # compiled once, used again
        else:
            with pytest.raises(TemplateFailed, match="/v1/completions"):
                template_host.render({"messages": MESSAGES})


def test_the_reason_a_template_gives_reaches_the_user():
    with host("{{ raise_exception('Roles must alternate') }}") as template_host:
        with pytest.raises(TemplateFailed, match="Roles must alternate"):
            template_host.render({"messages": MESSAGES})
        with pytest.raises(TemplateFailed, match="Roles must alternate"):
            template_host.render({"messages": MESSAGES})


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').system('id') }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ ().__class__.__base__.__subclasses__()[0] }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ messages.append(1) }}",
    "{{ (messages | map(attribute='__class__') | list)[0].__init__ }}",
    "{% set x = messages.__getattribute__('__class__') %}{{ x }}",
    "{{ request.application.__globals__ }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_no_template_reaches_out_of_the_sandbox(template, tmp_path):
    with host(template) as template_host:
        try:
            text = template_host.render({"messages": MESSAGES})
        except TemplateFailed:
            return
        assert "uid=" not in text
        assert "class" not in text
        assert "environ" not in text
        assert "<function" not in text


BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(9999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ 'a' * 10**10 }}",
    "{{ 'a' | center(2000000000) }}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"
    "{{ ns.s }}",
    "{{ 10 ** (10 ** 8) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ range(10**8) | list }}",
]


@pytest.mark.parametrize("template", BOMBS)
def test_a_bomb_ends_by_the_deadline_and_the_host_serves_on(template):
    with host(template) as template_host:
        template_host._template = "warm"
        assert template_host.render({}) == "warm"
        template_host._template = template
        template_host._is_warm = False
        with pytest.raises(TemplateFailed):
            template_host.render({"messages": MESSAGES})
        template_host._template = "{{ messages[0].role }}"
        template_host._is_warm = False
        assert template_host.render({"messages": MESSAGES}) == "user"


def test_the_process_holds_no_socket_and_ends_with_its_parent():
    with host("{{ 1 }}") as template_host:
        assert template_host.render({}) == "1"
        process = template_host._process
        assert process is not None
        proc = Path("/proc") / str(process.pid)
        assert "Seccomp:\t2" in (proc / "status").read_text()
        assert not any("socket" in str(fd.readlink()) for fd in (proc / "fd").iterdir())
    assert process.poll() is not None


@pytest.mark.parametrize("n_bytes", [1, 300_000], ids=["a small request", "more than a pipe holds"])
def test_a_process_that_stopped_is_replaced_and_the_request_answered(n_bytes):
    with host("{{ messages[0].content }}", timeout_s=1.0) as template_host:
        assert template_host.render({"messages": MESSAGES}) == "Grüße <b>"
        stopped = template_host.pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        text = "x" * n_bytes
        assert template_host.render({"messages": [{"content": text}]}) == text
        assert template_host.pid != stopped
        assert not Path(f"/proc/{stopped}").exists()


def test_a_process_that_stops_again_and_again_is_no_fault_of_the_template(monkeypatch):
    with host("{{ 1 }}", timeout_s=1.0) as template_host:
        assert template_host.render({}) == "1"
        start = template_host.start

        def start_stopped() -> None:
            start()
            template_host._read(20)
            template_host._is_greeted = True
            assert template_host.pid is not None
            os.kill(template_host.pid, signal.SIGSTOP)

        monkeypatch.setattr(template_host, "start", start_stopped)
        template_host.close()
        with pytest.raises(Unavailable):
            template_host.render({})
        monkeypatch.undo()
        assert template_host.render({}) == "1"


def test_a_wait_says_that_it_goes_on():
    beats: list[int] = []
    template_host = TemplateHost("{{ 1 }}", 1.0, lambda: beats.append(1))
    try:
        template_host.render({})
    finally:
        template_host.close()
    assert beats
