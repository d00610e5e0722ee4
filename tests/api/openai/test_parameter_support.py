"""GET /v1/conformance says of every parameter what really becomes of it."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import httpx
import pytest

from edgeagent.api.application import ROUTES
from tests.api.wire import exchange, post
from tests.conftest import DaemonProcess

# Routes that change something and take no body.
BODILESS = {
    "change_model",
    "cancel_response",
    "cancel_batch",
    "cancel_vector_store_file_batch",
    "cancel_audio_job",
    "append_to_audio_job",
} | {
    # Refused, whatever they say.
    f"ollama_{name}"
    for name in ("pull", "push", "create", "copy", "blobs")
}

Parameters = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def endpoints(tales_daemon: DaemonProcess) -> dict[tuple[str, str], Parameters]:
    """Parameters by name, of each method and path."""
    data = httpx.get(f"{tales_daemon.url}/v1/conformance", timeout=60).json()["data"]
    found = {
        (e["method"], e["path"]): {p["name"]: p for p in e["parameters"] if p["where"] == "body"}
        for e in data
    }
    assert len(found) == len(data)
    for endpoint in data:
        names = [(p["where"], p["name"]) for p in endpoint["parameters"]]
        assert len(names) == len(set(names)), "each parameter is named once"
    return found


def places(handler: Any) -> set[tuple[str, str]]:
    paths = {re.sub(r":\w+}", "}", path) for path in handler.paths}
    return {(str(method), path) for method in handler.http_methods for path in paths}


def reads_body(handler: Any) -> bool:
    source = inspect.getsource(handler.fn)
    return any(name in source for name in ("read_body", "read_recording", "read_upload"))


@pytest.mark.parametrize("handler", ROUTES, ids=lambda handler: handler.operation_id)
def test_every_route_is_listed_and_every_route_with_a_body_lists_its_fields(endpoints, handler):
    for place in places(handler):
        assert place in endpoints
        if reads_body(handler):
            assert endpoints[place], "give the route `operation_class=body_operation(...)`"
        elif place[0] in ("POST", "PUT", "PATCH"):
            assert handler.operation_id in BODILESS, "read the body by `read_body`"


@pytest.mark.parametrize(
    "handler", [h for h in ROUTES if reads_body(h)], ids=lambda h: h.operation_id
)
def test_the_fields_listed_are_those_that_the_route_reads(endpoints, handler):
    model = re.search(
        r"read_(?:body|recording|upload)\(request, (\w+)\)", inspect.getsource(handler.fn)
    )
    assert model is not None
    fields = handler.fn.__globals__[model.group(1)].model_fields
    names = {field.alias or name for name, field in fields.items()}
    for place in places(handler):
        listed = endpoints[place]
        top = {n for n, p in listed.items() if not set(n) & set(".[") and p["support"] != "refused"}
        assert top == names


def test_a_description_that_says_ignored_comes_from_a_mark(endpoints):
    for parameters in endpoints.values():
        for parameter in parameters.values():
            if "accepted and ignored" in (parameter["description"] or ""):
                assert parameter["support"] == "ignored", parameter
            if (parameter["description"] or "").startswith("extension"):
                assert parameter["support"] == "extension", parameter


def test_what_is_listed_as_refused_is_refused_by_name_and_its_harmless_values_are_not(
    tales_daemon, endpoints
):
    bases = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
        "/v1/completions": {"prompt": "Hi"},
    }
    n_refused = 0
    for (method, path), parameters in endpoints.items():
        for name, parameter in parameters.items():
            if parameter["support"] != "refused" or path not in bases:
                continue
            n_refused += 1
            body = bases[path] | {"max_tokens": 1, name: {"surely": "no harmless value"}}
            reply = exchange(tales_daemon.url, post(path, body))
            assert reply.status == 400, (method, path, name)
            assert (reply.error["param"], reply.error["code"]) == (name, "unsupported_parameter")
            for value in (None, *parameter["accepts"]):
                reply = exchange(tales_daemon.url, post(path, body | {name: value}))
                assert reply.status == 200, (name, value, json.loads(reply.body))
    assert n_refused > 3


def test_what_is_listed_as_ignored_is_accepted(tales_daemon, endpoints):
    base = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    listed = endpoints["POST", "/v1/chat/completions"]
    ignored = {n for n, p in listed.items() if p["support"] == "ignored" and "." not in n}
    assert {"user", "service_tier"} <= ignored
    for name in ignored:
        value = True if name == "parallel_tool_calls" else "something"
        reply = exchange(tales_daemon.url, post("/v1/chat/completions", base | {name: value}))
        assert reply.status == 200, (name, reply.body)
