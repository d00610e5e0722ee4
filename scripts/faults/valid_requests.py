"""Requests that are good, for every operation of an OpenAPI document: what a fuzzer begins with."""

# ruff: noqa: E501
from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from scripts.faults.playground import MODEL
from tests.conftest import MINILM

TOOL = {
    "type": "function",
    "function": {
        "name": "lamp",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}  # fmt: skip
FLAT_TOOL = {"type": "function", "name": "lamp", "parameters": TOOL["function"]["parameters"]}
SCHEMA = {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"], "additionalProperties": False,
}  # fmt: skip
CHAT = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "lamp", "arguments": '{"on": true}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "done"},
    {"role": "user", "content": "And now?"},
]  # fmt: skip
HI = [{"role": "user", "content": "Hi"}]
# By operation; where there is none, bodies are made from the schema alone.
BODIES: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"model": MODEL, "messages": HI, "max_tokens": 4},
        {"messages": CHAT, "max_completion_tokens": 4, "stream": True, "stream_options": {"include_usage": True}},
        {"messages": HI, "max_tokens": 24, "tools": [TOOL], "tool_choice": "required", "seed": 1},
        {"messages": HI, "max_tokens": 40, "n": 2, "logprobs": True, "top_logprobs": 3, "response_format":
            {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}},
        {"messages": HI, "max_tokens": 4, "store": True, "metadata": {"subject": "s"}, "stop": ["x"]},
        {"messages": HI, "max_tokens": 4, "response_format": {"type": "regex", "regex": "[a-z]+"}},
        {"messages": HI, "max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "presence_penalty": 1, "logit_bias": {"5": 1},
         "frequency_penalty": -1, "top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1, "priority": 3, "user": "u"},
    ],
    "count_chat_tokens": [{"messages": CHAT, "tools": [TOOL]}],
    "complete": [
        {"prompt": "Once", "max_tokens": 4},
        {"prompt": ["Once", "upon"], "n": 2, "best_of": 3, "max_tokens": 3, "logprobs": 2},
        {"prompt": [1, 2, 3], "echo": True, "stream": True, "max_tokens": 3, "stop": "a"},
        {"prompt": ["Once upon", "b"], "echo": True, "logprobs": 2, "max_tokens": 0},
    ],
    "embed": [
        {"model": MINILM, "input": "Hi"},
        {"model": MINILM, "input": ["a", "b"], "encoding_format": "base64", "dimensions": 8},
        {"model": MINILM, "input": [[101, 102]], "encoding_format": "float"},
    ],
    "rerank": [{"query": "a", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True}],
    "tokenize": [{"content": "Once upon", "add_special": True}],
    "detokenize": [{"tokens": [1, 2, 300]}],
    "respond": [
        {"input": "Hi", "max_output_tokens": 4},
        {"input": HI, "max_output_tokens": 4, "stream": True, "store": False, "instructions": "Be brief."},
        {"input": "Hi", "max_output_tokens": 4, "background": True, "metadata": {"a": "b"}},
        {"input": "Hi", "max_output_tokens": 24, "tools": [FLAT_TOOL], "tool_choice": "required",
         "include": ["message.output_text.logprobs"], "top_logprobs": 1},
        {"input": "Hi", "max_output_tokens": 30, "previous_response_id": "{resp}",
         "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}}},
        {"input": "Hi", "max_output_tokens": 4, "conversation": "{conv}"},
    ],
    "count_input_tokens": [{"input": "Hi", "tools": [FLAT_TOOL]}],
    "create_conversation": [{"metadata": {"a": "b"}, "items": [{"role": "user", "content": "Hi"}]}],
    "create_items": [{"items": [{"type": "message", "role": "user", "content": "Hi"}]}],
    "messages": [
        {"model": MODEL, "max_tokens": 4, "messages": HI, "system": "Be brief."},
        {"model": MODEL, "max_tokens": 24, "messages": HI, "stream": True, "tool_choice": {"type": "any"}, "tools":
            [{"name": "lamp", "input_schema": TOOL["function"]["parameters"]}]},
    ],
    "count_message_tokens": [{"model": MODEL, "messages": HI}],
    "ollama_chat": [
        {"model": MODEL, "messages": HI, "options": {"num_predict": 4}},
        {"model": MODEL, "messages": HI, "stream": False, "format": SCHEMA, "tools": [TOOL],
         "options": {"num_predict": 30, "seed": 1}, "logprobs": True},
    ],
    "ollama_generate": [
        {"model": MODEL, "prompt": "Once", "raw": True, "options": {"num_predict": 4}},
        {"model": MODEL, "prompt": "Hi", "system": "Be brief.", "stream": False, "options": {"num_predict": 4}},
        {"model": MODEL, "keep_alive": 5},
    ],
    "ollama_show": [{"model": MODEL}],
    "ollama_embed": [{"model": MINILM, "input": ["a", "b"]}],
    "ollama_embeddings": [{"model": MINILM, "prompt": "a"}],
    "feedback": [{"target_id": "{chatcmpl}", "rating": 1, "comment": "good"}],
    "update_chat": [{"metadata": {"a": "b"}}],
    "update_conversation": [{"metadata": {"a": "b"}}],
    "create_key": [{"name": "n", "scopes": ["chat"]}],
    "rotate_key": [{"grace_s": 5}],
    "export_data": [{"subject": "s"}],
    "erase_data": [{"subject": "s"}],
}  # fmt: skip
# What may stand in a path, beside ids that the daemon has given out.
IN_PATHS = {
    "model_id": [MODEL, "default", "a/b", MINILM],
    # To load a model again costs more than a hundred other requests.
    "path": [*[f"{MODEL}/load"] * 12, f"{MODEL}/unload", "x/load"],
    "digest": ["sha256:" + "0" * 64],
}
QUERIES = {
    "limit": ["1", "20", "100"], "order": ["asc", "desc"], "after": ["{any}"], "stream": ["true"],
    "starting_after": ["0", "3"], "query": ["hi", '"a b" OR c*'], "q": ["hi", "a-b"],
    "include": ["message.output_text.logprobs"], "include[]": ["message.output_text.logprobs"],
    "include_obfuscation": ["false"], "verbose": ["true"],
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """One method of one path. `schema` is its body's, with references still in it."""

    id: str
    method: str
    path: str
    queries: tuple[str, ...]
    schema: dict[str, Any] | None


def operations(document: dict[str, Any]) -> list[Operation]:
    """Every operation of a document, in its order."""
    return [
        Operation(
            operation["operationId"],
            method.upper(),
            path,
            tuple(p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"),
            _schema_of(operation),
        )
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict)
    ]


def _schema_of(operation: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {})
    for media in content.values():
        return dict(media.get("schema", {}))
    return None


class Maker:
    """Makes requests of operations. `ids` are those that a daemon has given out, by their beginnings."""

    def __init__(self, document: dict[str, Any], ids: dict[str, list[str]]) -> None:
        self._schemas = document.get("components", {}).get("schemas", {})
        self._ids = ids

    def path(self, operation: Operation, rng: random.Random) -> str:
        """Path and query."""

        def value(match: re.Match[str]) -> str:
            name = match.group(1).partition(":")[0]
            if name in IN_PATHS:
                return rng.choice(IN_PATHS[name])
            return self._id({"completion_id": "chatcmpl", "response_id": "resp", "key_id": "key",
                             "conversation_id": "conv"}.get(name, "any"), rng)  # fmt: skip

        if "{item_id}" in operation.path and self._ids.get("item path"):
            path = rng.choice(self._ids["item path"])
        else:
            path = re.sub(r"\{([^}]+)\}", value, operation.path)
        chosen = [name for name in operation.queries if rng.random() < 0.5]
        pairs = [
            f"{name}={self._filled(rng.choice(QUERIES.get(name, ['1'])), rng)}" for name in chosen
        ]
        return path + ("?" + "&".join(pairs) if pairs else "")

    def body(self, operation: Operation, rng: random.Random) -> Any:
        """A body that is good, or good as far as its schema tells; None where it has none."""
        if operation.schema is None:
            return None
        known = BODIES.get(operation.id)
        if known and rng.random() < 0.75:
            return self._filled(rng.choice(known), rng)
        made = self._made(operation.schema, rng, 0)
        if known and isinstance(made, dict):
            some = {k: v for k, v in made.items() if rng.random() < 0.3}
            return self._filled(rng.choice(known), rng) | some
        return made

    def _id(self, kind: str, rng: random.Random) -> str:
        found = self._ids.get(kind) or [f"{kind}_0123456789abcdef01234567"]
        return rng.choice(found)

    def _filled(self, value: Any, rng: random.Random) -> Any:
        """The same with ids in place of their kinds."""
        if isinstance(value, dict):
            return {key: self._filled(inner, rng) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner, rng) for inner in value]
        if isinstance(value, str) and re.fullmatch(r"\{\w+\}", value):
            return self._id(value[1:-1], rng)
        return value

    def _made(self, schema: dict[str, Any], rng: random.Random, depth: int) -> Any:
        """An instance of a schema; of the keywords those that our own schemas have."""
        if "$ref" in schema:
            return self._made(self._schemas[schema["$ref"].rpartition("/")[2]], rng, depth)
        for keyword in ("anyOf", "oneOf", "allOf"):
            if schema.get(keyword):
                return self._made(rng.choice(schema[keyword]), rng, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return rng.choice(schema["enum"])
        kind = schema.get("type", "null")
        if isinstance(kind, list):
            kind = rng.choice(kind)
        low, high = schema.get("minimum", 0), schema.get("maximum", 20)
        match kind:
            case "object":
                return self._made_object(schema, rng, depth)
            case "array":
                n = max(schema.get("minItems", 0), rng.randrange(3) if depth < 6 else 0)
                return [self._made(schema.get("items", {}), rng, depth + 1) for _ in range(n)]
            case "integer":
                return rng.randint(int(low), max(int(low), min(int(high), int(low) + 40)))
            case "number":
                return rng.uniform(low, max(low, min(high, low + 40)))
            case "boolean":
                return rng.random() < 0.5
            case "string":
                return "a" * max(schema.get("minLength", 0), rng.randrange(6))
        return None

    def _made_object(self, schema: dict[str, Any], rng: random.Random, depth: int) -> Any:
        required = set(schema.get("required", ()))
        share = 0.25 if depth < 4 else 0.0
        made = {
            name: self._made(inner, rng, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or rng.random() < share
        }
        if not made and depth < 4 and isinstance(schema.get("additionalProperties"), dict):
            made["a"] = self._made(schema["additionalProperties"], rng, depth + 1)
        return made
