"""The scope that each path needs. A path without a rule is not answered."""

from __future__ import annotations

from typing import Literal, NamedTuple

from edgeagent.types.caller import KeyScope

Need = KeyScope | Literal["open", "any key"]


class Rule(NamedTuple):
    """`need` applies to `path` and everything below it; "open" to `path` alone. Method "*" means every
    method."""

    method: str
    path: str
    need: Need


# The first rule that matches applies.
RULES = (
    Rule("GET", "/health", "open"),
    Rule("GET", "/", "open"),  # the first request of Ollama's clients, and /api/version
    Rule("HEAD", "/", "open"),
    Rule("GET", "/api/version", "open"),
    Rule("GET", "/web/widget.js", "open"),  # pages load it without a key
    Rule("GET", "/ready", "any key"),
    Rule("GET", "/schema", "any key"),
    Rule("GET", "/metrics", "metrics"),
    Rule("*", "/v1/chat/completions", "chat"),  # also the stored answers of its owner
    Rule("POST", "/v1/completions", "chat"),
    Rule("*", "/v1/responses", "chat"),
    Rule("*", "/v1/conversations", "chat"),
    Rule("*", "/v1/bots", "bot"),
    Rule("POST", "/v1/messages", "chat"),  # and their token counts
    Rule("POST", "/api/chat", "chat"),
    Rule("POST", "/api/generate", "chat"),
    Rule("*", "/v1/audio", "transcribe"),
    Rule("GET", "/v1/realtime", "transcribe"),
    Rule("POST", "/v1/embeddings", "embeddings"),
    Rule("POST", "/v1/rerank", "embeddings"),
    Rule("POST", "/v2/rerank", "embeddings"),
    Rule("POST", "/rerank", "embeddings"),
    Rule("POST", "/api/embed", "embeddings"),
    Rule("POST", "/api/embeddings", "embeddings"),
    Rule("GET", "/api/tags", "any key"),
    Rule("GET", "/api/ps", "any key"),
    Rule("POST", "/api/show", "any key"),
    # These are refused with a message that names the command.
    *(
        Rule("POST", f"/api/{name}", "models")
        for name in ("pull", "push", "create", "copy", "blobs")
    ),
    Rule("DELETE", "/api/delete", "models"),
    Rule("POST", "/tokenize", "any key"),
    Rule("GET", "/tokenizer_info", "any key"),
    Rule("POST", "/detokenize", "any key"),
    Rule("GET", "/v1/models", "any key"),  # every SDK lists them
    Rule("POST", "/v1/models", "models"),
    Rule("GET", "/v1/conformance", "any key"),
    Rule("GET", "/v1/usage", "any key"),
    Rule("POST", "/v1/feedback", "any key"),
    Rule("*", "/v1/files", "chat"),
    Rule("*", "/v1/vector_stores", "chat"),
    Rule("*", "/v1/batches", "chat"),  # also the scope of its endpoint
    Rule("GET", "/v1/search", "chat"),
    Rule("*", "/admin/keys", "admin"),
    Rule("GET", "/admin/audit", "admin"),
    # "data" for the owner's rows, "admin" for all: the service checks whose they are.
    Rule("POST", "/admin/export", "any key"),
    Rule("POST", "/admin/erase", "any key"),
)


# Paths that a WebSocket may be asked for, in parts.
SOCKET_PATHS = (["v1", "realtime"],)


def need_of(method: str, path: str) -> Need | None:
    """The need of a request; None where no rule matches, which means it is refused."""
    wanted = parts(path)
    for rule in RULES:
        if rule.method in ("*", method) and is_below(wanted, rule):
            return rule.need
    return "any key" if method == "OPTIONS" and is_known(path) else None


def is_known(path: str) -> bool:
    """Whether the path is answered for any method."""
    wanted = parts(path)
    return any(is_below(wanted, rule) for rule in RULES)


def is_below(path: list[str], rule: Rule) -> bool:
    own = parts(rule.path)
    return path == own if rule.need == "open" else path[: len(own)] == own


def parts(path: str) -> list[str]:
    """The parts of a path as Litestar's router sees it: empty parts are ignored, so //admin is /admin."""
    return [part for part in path.split("/") if part]
