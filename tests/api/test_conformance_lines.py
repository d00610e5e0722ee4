"""Lines of OpenAI's surface that no other file holds, and the table in tests/README.md of those that do.

Statuses and retries are asked of the SDK itself, for every error there is; ids with a slash and a model that
thinks need a model of their own.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest

from edgeagent import errors
from edgeagent.api.http.errors import encoded
from edgeagent.catalog.digest import sha256_of
from tests.api.wire import error_of
from tests.catalog.mutants import STR, Key, take_apart
from tests.conftest import ROOT, DaemonProcess, serving

THINKER = "acme/tiny"
# What the model says is a section of reasoning until it closes it, which noise never does.
TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}<think>\n{# </think> #}"
HI = [{"role": "user", "content": "Hi"}]
SDK = openai.OpenAI(base_url="http://localhost/v1", api_key="none")
RAISED = {
    400: openai.BadRequestError, 401: openai.AuthenticationError, 403: openai.PermissionDeniedError,
    404: openai.NotFoundError, 405: openai.APIStatusError, 409: openai.ConflictError,
    413: openai.APIStatusError,
    415: openai.APIStatusError, 422: openai.UnprocessableEntityError, 429: openai.RateLimitError,
}  # fmt: skip


def every(kind: type[errors.EdgeAgentError]) -> Iterator[type[errors.EdgeAgentError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == "edgeagent.errors":  # those that reach a client
            yield from every(child)


@pytest.mark.parametrize("kind", sorted({*every(errors.EdgeAgentError)}, key=str))
def test_the_sdk_raises_its_own_error_for_each_of_ours_and_retries_what_passes(kind):
    for retry_after_s in (None, 0.2, 7.0, 9000.0):
        error = kind(
            "What, the value, the bound: the way out.", param="p", retry_after_s=retry_after_s
        )
        status, headers, body = encoded(error)
        request = httpx.Request("POST", "http://localhost/v1/chat/completions")
        response = httpx.Response(status, headers=headers, content=body, request=request)
        raised = SDK._make_status_error_from_response(response)
        assert type(raised) is RAISED.get(status, openai.InternalServerError), status
        shown = error_of(json.loads(body))
        assert (raised.code, raised.param) == (kind.code, "p") == (shown["code"], shown["param"])
        passes = isinstance(error, errors.Unavailable)
        assert SDK._should_retry(response) is passes
        if passes:
            wait_s = SDK._parse_retry_after_header(response.headers)
            assert wait_s is not None and 1 <= wait_s <= 120, "the SDK ignores a longer one"


@pytest.fixture(scope="module")
def thinker(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """stories260K with a template that opens a section of reasoning, under an id with a slash."""
    folder = tmp_path_factory.mktemp("lines") / "models" / "acme__tiny"
    folder.mkdir(parents=True)
    text = TEMPLATE.encode()
    template = Key(b"tokenizer.chat_template", STR, struct.pack("<Q", len(text)) + text)
    parts = take_apart(stories)
    model = folder / "tiny.gguf"
    model.write_bytes(replace(parts, keys=(*parts.keys, template)).encode())
    (folder / "installed.toml").write_text(
        f'id = "{THINKER}"\nfile = "tiny.gguf"\nquant = "F32"\nsize_bytes = {model.stat().st_size}\n'
        f'sha256 = "{sha256_of(model)}"\nsource = "test"\n'
        'installed_at = "2026-11-26T00:00:00+00:00"\nstate = "good"\n'
    )
    with serving(folder.parent, folder.parents[1] / "state", n_ctx=512) as daemon:
        yield daemon


def test_models_have_what_the_sdk_reads_and_ids_with_a_slash_resolve(thinker: DaemonProcess):
    with thinker.client() as client:
        (model,) = [m for m in client.models.list().data if not m.id.startswith("auto")]
        assert (model.id, model.object) == (THINKER, "model")
        assert isinstance(model.created, int) and model.created > 0 and model.owned_by
        known = {"capabilities", "chat_template"}  # found out meanwhile, perhaps
        found = client.models.retrieve(THINKER)
        assert found.model_dump(exclude=known) == model.model_dump(exclude=known)
        answer = client.chat.completions.create(model=THINKER, messages=HI, max_tokens=2)
        assert answer.model == THINKER


@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_a_model_thinks_is_told_beside_the_content(thinker: DaemonProcess, is_streamed):
    options = {"model": THINKER, "messages": HI, "max_tokens": 12, "temperature": 0}
    with thinker.client() as client:
        if is_streamed:
            chunks = client.chat.completions.create(stream=True, **options)
            deltas = [c.choices[0].delta for c in chunks]
            content = "".join(d.content or "" for d in deltas)
            thought = "".join(getattr(d, "reasoning_content", None) or "" for d in deltas)
        else:
            answer = client.chat.completions.create(**options)
            message = answer.choices[0].message
            content, thought = message.content, message.reasoning_content
            details = answer.usage.completion_tokens_details
            assert details.reasoning_tokens == answer.usage.completion_tokens == 12
    assert content == "" and thought


def test_a_form_binds_the_content_and_leaves_the_thinking_free(thinker: DaemonProcess):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}}
    with thinker.client() as client:
        answer = client.chat.completions.create(
            model=THINKER, messages=HI, max_tokens=60, logprobs=True, response_format=form,
            logit_bias={"2": 100},  # the end of the text, which closes the section
        )  # fmt: skip
    (choice,) = answer.choices
    assert isinstance(json.loads(choice.message.content)["a"], bool)
    assert "".join(t.token for t in choice.logprobs.content) == choice.message.content


def test_the_table_names_tests_that_exist_for_every_line():
    text = (ROOT / "tests" / "README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", text, re.M)
    assert [int(number) for number, _ in rows] == list(range(1, 28))
    for number, cell in rows:
        named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", cell)
        assert named or int(number) >= 24, f"line {number} has no test"
        for file, name in named:
            path = ROOT / "tests" / file
            assert path.is_file(), file
            assert not name or re.search(rf"^(async )?def {name}\(", path.read_text(), re.M), name
