"""The process that runs a model's chat template, one that `fork_server` forks.

A template is a program from the author of the weights. It runs in Jinja2's sandbox, in a process of its own
with little memory and without sockets, files, the model or texts of other requests; the process is killed at
the deadline. Requests and answers are MessagePack frames on standard input and output.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from typing import BinaryIO, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
import msgspec

from edgeagent.engine.prompt.template_protocol import (
    LENGTH,
    RenderAnswer,
    RenderRequest,
    write_frame,
)
from edgeagent.worker import confinement

ADDRESS_SPACE_BYTES = 384 << 20
# How Jinja2 names the file of a template that came as text.
_TEMPLATE_FILES = ("<template>", "<unknown>")


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime_now(format_: str) -> str:
    return datetime.datetime.now().strftime(format_)


def _to_json(value: object, indent: int | None = None, ensure_ascii: bool = False) -> str:
    # Unlike Jinja's own filter this one leaves <, > and & alone: prompts are not HTML.
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)


def environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """Jinja2 as chat templates expect it, after Hugging Face's documented set of additions."""
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = _strftime_now
    env.filters["tojson"] = _to_json
    return env


def warm_up() -> None:
    """Import what Jinja2 imports at the first rendering and the first error, while files can be read."""
    env = environment()
    env.from_string(
        "{{ [1] | tojson }}{{ [1] | pprint }}{{ '<b>&amp;' | striptags }}{{ lipsum(1) }}"
        "{{ strftime_now('%A %Z') }}"
    ).render()
    with contextlib.suppress(jinja2.TemplateError):
        env.from_string("{{ raise_exception('x') }}").render()


def _told(exc: Exception) -> str:
    """What an exception says and where in the template it was raised, in one line."""
    line = exc.lineno if isinstance(exc, jinja2.TemplateSyntaxError) else None
    trace = None if line else exc.__traceback__
    while trace is not None:
        # Jinja2 rewrites the frames of compiled templates so that they name lines of the template.
        if trace.tb_frame.f_code.co_filename in _TEMPLATE_FILES:
            line = trace.tb_lineno
        trace = trace.tb_next
    said = exc.message if isinstance(exc, jinja2.TemplateError) else str(exc)
    where = f" (line {line} of the template)" if line else ""
    text = f"{type(exc).__name__}: {said or ''}"[:500]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()) + where


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer render requests until the other side closes."""
    env = environment()
    compiled: jinja2.Template | None = None
    decode = msgspec.msgpack.Decoder(RenderRequest).decode
    write_frame(sink, RenderAnswer())  # the imports are done: deadlines may start
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        request = decode(source.read(LENGTH.unpack(head)[0]))
        write_frame(sink, RenderAnswer())
        try:
            if request.template is not None:
                compiled = None
                compiled = env.from_string(request.template)
            if compiled is None:
                raise jinja2.TemplateError("the template did not compile")
            answer = RenderAnswer(text=compiled.render(**request.variables))
        except MemoryError:
            compiled = None
            answer = RenderAnswer(error="it needs more memory than a template may have")
        except Exception as exc:  # a template can raise anything
            answer = RenderAnswer(error=_told(exc))
        write_frame(sink, answer)


def main(parent: int) -> None:
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    confinement.enter(
        may_import=False, oom_score_adj=None, address_space_bytes=ADDRESS_SPACE_BYTES, parent=parent
    )
    with contextlib.suppress(BrokenPipeError):  # the parent process has ended
        serve(source, sink)
