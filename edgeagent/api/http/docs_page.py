"""The page that documents the API: a single HTML file without scripts or external resources.

The usual renderers of OpenAPI documents load scripts from the internet, which an offline device does not
have.
"""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec
from litestar import Request
from litestar.enums import OpenAPIMediaType
from litestar.openapi.plugins import OpenAPIRenderPlugin

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color-scheme: light dark; }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
code { font-size: .9em; overflow-wrap: anywhere; }
b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid #8884; padding: .2rem .6rem .2rem 0; text-align: left; vertical-align: top; }
td td { font-size: .95em; }
"""
_METHODS = ("get", "post", "put", "patch", "delete")
_BOUNDS = {
    "minimum": "at least {}", "exclusiveMinimum": "more than {}", "maximum": "at most {}",
    "exclusiveMaximum": "less than {}", "minLength": "{} characters or more",
    "maxLength": "up to {} characters", "minItems": "{} or more of them",
    "maxItems": "up to {} of them", "maxProperties": "up to {} entries", "pattern": "matches {}",
    "default": "else {}",
}  # fmt: skip


class JsonPlugin(OpenAPIRenderPlugin):
    """Serves the document at /schema/openapi.json, encoded once: that takes the event loop milliseconds."""

    def __init__(self) -> None:
        super().__init__(path="/openapi.json", media_type=OpenAPIMediaType.OPENAPI_JSON)
        self._encoded: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._encoded is None:
            self._encoded = self.render_json(request, openapi_schema)
        return self._encoded


class DocsPlugin(OpenAPIRenderPlugin):
    """Serves the page at /schema, made once."""

    def __init__(self, document: JsonPlugin) -> None:
        super().__init__(path="/docs")
        self._document = document
        self._page: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._page is None:
            self._page = page(
                msgspec.json.decode(self._document.render(request, openapi_schema))
            ).encode()
        return self._page


def page(spec: dict[str, Any]) -> str:
    """The HTML of an OpenAPI document that is plain JSON."""
    title = f"{spec['info']['title']} {spec['info']['version']}"
    operations = "".join(
        _operation(method, path, item[method])
        for path, item in spec["paths"].items()
        for method in _METHODS
        if method in item
    )
    schemas = "".join(
        f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>{_schema(schema)}"
        "</details>"
        for name, schema in spec.get("components", {}).get("schemas", {}).items()
    )
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<link rel='icon' href='data:,'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(spec['info'].get('description') or '')}</p>"
        "<p>Where keys exist, each request carries one: <code>Authorization: Bearer ea_...</code>. "
        "The same as <a href='/schema/openapi.json'>OpenAPI document</a>.</p>"
        f"<h2>Requests</h2>{operations}<h2>What is answered</h2>{schemas}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<p>{escape(operation.get('description') or '')}</p>"]
    if parameters := operation.get("parameters"):
        fields = {
            p["name"]: p["schema"] | {"description": p.get("description") or p["in"]}
            for p in parameters
        }
        needed = [p["name"] for p in parameters if p.get("required")]
        parts.append(f"<h4>Parameters</h4>{_fields(fields, needed)}")
    for content in operation.get("requestBody", {}).get("content", {}).values():
        parts.append(f"<h4>Body</h4>{_schema(content['schema'])}")
    parts.append(f"<h4>Answers</h4><table>{''.join(_answers(operation['responses']))}</table>")
    return (
        f"<details><summary><b>{method.upper()}</b><code>{escape(path)}</code> "
        f"{escape(operation.get('summary') or '')}</summary>{''.join(parts)}</details>"
    )


def _answers(responses: dict[str, Any]) -> list[str]:
    rows = []
    for status, response in responses.items():
        kinds = [_kind(content["schema"]) for content in response.get("content", {}).values()]
        rows.append(
            f"<tr><td>{escape(status)}</td><td>{', '.join(kinds)}</td>"
            f"<td>{escape(response['description'])}</td></tr>"
        )
    return rows


def _schema(schema: dict[str, Any]) -> str:
    told = schema.get("description")
    text = f"<p>{escape(told)}</p>" if told else ""
    if "properties" in schema:
        return text + _fields(schema["properties"], schema.get("required", []))
    return f"{text}<p>{_kind(schema)}</p>"


def _fields(fields: dict[str, Any], needed: list[str]) -> str:
    rows = []
    for name, schema in fields.items():
        must = " <em>required</em>" if name in needed else ""
        inner = "".join(_schema(part) for part in _objects(schema))
        rows.append(
            f"<tr><td><code>{escape(name)}</code>{must}</td><td>{_kind(schema)}</td>"
            f"<td>{escape(schema.get('description') or '')}{inner}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects with fields of their own that a field may hold."""
    if "properties" in schema:
        return [schema]
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if isinstance(schema.get("items"), dict):
        inner.append(schema["items"])
    return [found for part in inner for found in _objects(part)]


def _kind(schema: dict[str, Any]) -> str:
    """What a value may be, in a few words of HTML."""
    if reference := schema.get("$ref"):
        name = escape(reference.rsplit("/", 1)[1])
        return f"<a href='#{name}'>{name}</a>"
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if choices:
        kinds = " or ".join(_kind(part) for part in choices if part.get("type") != "null")
    elif "enum" in schema:
        kinds = " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    elif "const" in schema:
        kinds = f"<code>{escape(str(schema['const']))}</code>"
    elif isinstance(schema.get("items"), dict):
        kinds = f"list of {_kind(schema['items'])}"
    else:
        types = schema.get("type", "any")
        kinds = escape(" or ".join(types) if isinstance(types, list) else types)
    bounds = [
        text.format(escape(str(schema[key])))
        for key, text in _BOUNDS.items()
        if key in schema and not any(schema[key] is nothing for nothing in (None, False, ""))
    ]
    return f"{kinds} ({', '.join(bounds)})" if bounds else kinds
