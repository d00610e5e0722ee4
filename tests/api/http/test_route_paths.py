"""Which paths there are, and what is told of those that are not."""

from __future__ import annotations

import pytest

from edgeagent.api.http.route_paths import Paths
from edgeagent.errors import BadRequest, NotFound

PATHS = Paths({
    "/": ["GET"],
    "/v1/responses": ["POST"],
    "/v1/responses/{response_id:str}": ["GET", "DELETE"],
    "/v1/responses/{response_id:str}/cancel": ["POST"],
    "/v1/responses/input_tokens": ["POST"],
    "/v1/models/{model_id:path}": ["GET"],
    "/v1/models/{path:path}": ["POST"],
    "/v1/messages": ["POST"],
})  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/", "yes"),
        ("GET", "//", "yes"),
        ("POST", "/", "method"),
        ("POST", "/v1//responses/", "yes"),
        ("POST", "/v1/responses/input_tokens", "yes"),
        ("GET", "/v1/responses/resp_0", "yes"),
        ("GET", "/v1/responses/anything", "yes"),  # what it is not is the route's to say
        ("POST", "/v1/responses/resp_0", "method"),
        ("POST", "/v1/responses/compact", "nothing"),
        ("GET", "/v1/responses/input_tokens", "yes"),
        ("POST", "/v1/responses/resp_0/cancel", "yes"),
        ("GET", "/v1/responses/resp_0/cancel", "method"),
        ("GET", "/v1/responses/resp_0/more", "nothing"),
        ("POST", "/v1/files", "nothing"),
        ("POST", "/v1/messages/batches", "nothing"),
        ("GET", "/v1/models", "nothing"),
        ("GET", "/v1/models/org/name", "yes"),
        ("POST", "/v1/models/org/name/load", "yes"),
        ("DELETE", "/v1/models/org/name", "method"),
    ],
)
def test_what_a_path_answers(method, path, answer):
    if answer == "nothing":
        with pytest.raises(NotFound):
            PATHS.check(method, path)
    elif answer == "method":
        with pytest.raises(BadRequest, match="method"):
            PATHS.check(method, path)
        assert PATHS.methods(path)
    else:
        PATHS.check(method, path)
