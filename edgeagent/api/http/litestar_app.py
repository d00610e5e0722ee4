"""A Litestar application with the plugins that edgeagent uses and no others.

Litestar adds plugins for pydantic and attrs to every application. Their imports (pydantic's first version,
attrs) take 2.4 MB of the 57 MB of a daemon's own memory (x86-64, Python 3.11, 2026-11-29), and serve the
document of the API only: handlers read their bodies and write their answers themselves.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from litestar import Litestar
from litestar.plugins import OpenAPISchemaPlugin, PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.typing import FieldDefinition


class ModelSchemas(OpenAPISchemaPlugin):
    """The schemas of pydantic models, by Litestar's own plugin, imported when the document is made."""

    @cached_property
    def _plugin(self) -> OpenAPISchemaPlugin:
        from litestar.plugins.pydantic import PydanticSchemaPlugin

        return PydanticSchemaPlugin()

    # Litestar declares the first three as static methods, and calls them on the instance.
    def is_plugin_supported_type(self, value: Any) -> bool:  # type: ignore[override]
        return self._plugin.is_plugin_supported_type(value)

    def is_undefined_sentinel(self, value: Any) -> bool:  # type: ignore[override]
        return self._plugin.is_undefined_sentinel(value)

    def is_constrained_field(self, field_definition: FieldDefinition) -> bool:  # type: ignore[override]
        return self._plugin.is_constrained_field(field_definition)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Any:
        return self._plugin.to_openapi_schema(field_definition, schema_creator)


class Application(Litestar):
    """Litestar without its default plugins for pydantic and attrs."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin(), ModelSchemas()]
