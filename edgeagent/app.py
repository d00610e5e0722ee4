"""The composition root: builds every part of the daemon, and starts and stops them in order.

    settings -> library -> models -> pool -> agent -> API -> guard -> server
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import time
from contextlib import suppress

from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.types import ASGIApp

from edgeagent import __version__
from edgeagent.agent import Agent
from edgeagent.api import chat, completions, errors, guard, models, server, system
from edgeagent.catalog.library import Library, shipped_models_dir
from edgeagent.catalog.manifest import Catalog, load_catalog
from edgeagent.catalog.record import InstalledModel
from edgeagent.errors import EdgeAgentError, ModelNotFound, StartFailed
from edgeagent.pool import Pool, PoolLimits
from edgeagent.settings import Settings
from edgeagent.types import EngineConfig, Sampling

logger = logging.getLogger(__name__)

LISTING_AGE_S = 2.0
GENERATING_TASKS = ("chat", "assistant")


class InstalledModels:
    """The installed models as the pool and the agent want them. Event loop's thread only.

    The directories are listed at most every two seconds, and at once for a name that is not known.
    """

    def __init__(self, settings: Settings, library: Library, catalog: Catalog) -> None:
        self._settings = settings
        self._library = library
        self._catalog = catalog
        self._listing: dict[str, InstalledModel] = {}
        self._listed_s = float("-inf")

    def installed(self) -> list[InstalledModel]:
        """Every model that generates text, by id. A directory that cannot be read has none."""
        now = time.monotonic()
        if now - self._listed_s > LISTING_AGE_S:
            self._listed_s = now
            try:
                found = self._library.installed()
            except EdgeAgentError as exc:
                logger.error("models_dir_unreadable %s", exc.message)
                found = []
            self._listing = {model.id: model for model in found if self._generates(model)}
        return list(self._listing.values())

    def _generates(self, model: InstalledModel) -> bool:
        return model.id not in self._catalog or self._catalog.entry(model.id).task in GENERATING_TASKS

    def default_id(self) -> str | None:
        ids = [model.id for model in self.installed()]
        if self._settings.default_model in ids:
            return self._settings.default_model
        return ids[0] if ids else None

    def sampling(self, model_id: str) -> Sampling:
        """The catalog's sampling defaults for the model over our own."""
        if model_id not in self._catalog:
            return Sampling()
        defaults = self._catalog.entry(model_id).sampling
        known = {name: getattr(defaults, name) for name in defaults.__struct_fields__}
        return Sampling(**{name: value for name, value in known.items() if value is not None})

    def configure(self, model_id: str) -> EngineConfig:
        """How to load a model. Raises: ModelNotFound."""
        model = self._find(model_id)
        settings = self._settings
        return EngineConfig(
            model_id=model_id,
            path=str(model.path),
            n_ctx=settings.n_ctx,
            n_seq=settings.n_seq,
            n_prefixes=settings.n_prefixes,
            n_batch=settings.n_batch,
            n_threads=settings.n_threads or len(os.sched_getaffinity(0)),
            kv_type=settings.kv_type,
            flash_attention=settings.flash_attention,
            step_budget_ms=settings.step_budget_ms,
            queue_limit=settings.queue_limit,
            queue_timeout_s=settings.queue_timeout_s,
            default_max_tokens=settings.default_max_tokens,
            template_timeout_s=settings.template_timeout_s,
        )

    def _find(self, model_id: str) -> InstalledModel:
        self.installed()
        if model_id not in self._listing:
            self._listed_s = float("-inf")
            self.installed()
        if model_id in self._listing:
            return self._listing[model_id]
        self._library.resolve(model_id)  # says what is near, or that it is not installed
        raise ModelNotFound(
            f"Model {model_id!r} does not generate text: GET /v1/models lists those that do.", param="model"
        )


class Daemon:
    """Every part of one daemon. `app` is the ASGI application; `close()` may be called twice."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        refuse_exposed_bind(settings.host)
        library = Library(settings.effective_models_dir)
        user_catalog = settings.effective_models_dir / "catalog.toml"
        catalog = load_catalog(shipped_models_dir() / "catalog.toml", user_catalog)
        self.models = InstalledModels(settings, library, catalog)
        self.pool = Pool(_limits(settings), self.models.configure, log_level=settings.log_level)
        self.agent = Agent(self.pool, self.models)
        self._preloading: asyncio.Task[None] | None = None
        self.app: ASGIApp = guard.Guard(
            self._api(),
            guard.rules(
                settings.host,
                settings.allowed_hosts,
                settings.allowed_origins,
                settings.max_body_bytes,
                settings.body_timeout_s,
            ),
        )

    def _api(self) -> Litestar:
        return Litestar(
            route_handlers=[
                chat.chat,
                completions.complete,
                models.list_models,
                models.get_model,
                system.health,
                system.ready,
            ],
            dependencies={
                "agent": Provide(lambda: self.agent, sync_to_thread=False),
                "settings": Provide(lambda: self.settings, sync_to_thread=False),
            },
            exception_handlers={Exception: errors.respond},
            on_startup=[self._start],
            on_shutdown=[self.close],
            openapi_config=OpenAPIConfig(
                title="edgeagent",
                version=__version__,
                description="OpenAI-compatible API of small language models on this device.",
                render_plugins=[SwaggerRenderPlugin()],
            ),
            logging_config=None,
            request_max_body_size=None,  # the guard's bound holds, with its own error
        )

    async def _start(self) -> None:
        await self.pool.open()
        if self.settings.preload:
            self._preloading = asyncio.create_task(self._preload(), name="preload")

    async def _preload(self) -> None:
        """Load the default model; what keeps it from loading is logged and shown by /ready."""
        with suppress(EdgeAgentError):
            async with self.pool.lease(self.agent.route(None).model_id):
                logger.info("ready model=%s", self.agent.route(None).model_id)

    async def close(self) -> None:
        if self._preloading is not None:
            self._preloading.cancel()
        await self.pool.close()

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Answer on these sockets until told to stop by SIGINT or SIGTERM."""
        await server.server(self.app, self.settings).serve(sockets=sockets)


def refuse_exposed_bind(host: str) -> None:
    """Raises: StartFailed for an address that others can reach, as long as there are no API keys."""
    if host == "localhost":
        return
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise StartFailed(
        f"Host {host} can be reached by others and no API key protects it: use 127.0.0.1 or ::1, and a tunnel "
        "or a proxy that checks who calls."
    )


def _limits(settings: Settings) -> PoolLimits:
    return PoolLimits(
        max_resident=settings.max_resident_models,
        load_timeout_s=settings.load_timeout_s,
        hang_timeout_s=settings.hang_timeout_s,
        breaker_deaths=settings.breaker_deaths,
        breaker_window_s=settings.breaker_window_s,
    )


