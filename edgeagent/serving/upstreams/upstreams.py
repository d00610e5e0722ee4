"""All upstreams of a daemon: the models that they answer for, and for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from edgeagent.errors import Forbidden, SettingsError, UpstreamUnavailable
from edgeagent.routing.upstreams.upstream_access import Access, Sender, circle
from edgeagent.serving.upstreams.upstream import Upstream
from edgeagent.serving.upstreams.upstream_client import UpstreamClient
from edgeagent.serving.upstreams.waiting_line import WaitingLine
from edgeagent.settings.upstreams import UpstreamSettings

# Writes into the audit: the id of the key, and what was sent where.
Note = Callable[[str, str], Awaitable[None]]


async def _no_note(key_id: str, what: str) -> None:
    return None


class Upstreams:
    """Event loop's thread only; `close()` may be called twice. Nothing is connected before the first request
    that may be sent. Raises: SettingsError for tables that cannot be used together.
    """

    def __init__(
        self, settings: Sequence[UpstreamSettings] = (), *, is_offline: bool = False
    ) -> None:
        self.note: Note = _no_note
        self._by_name: dict[str, Upstream] = {}
        for one in settings:
            if one.name in self._by_name:
                raise SettingsError(
                    f"Two [[routing.upstreams]] have the name {one.name!r}: rename one."
                )
            if is_offline and not one.is_on_this_machine:
                raise SettingsError(
                    f"offline = true, and [[routing.upstreams]] {one.name} is another machine: remove one of "
                    "them."
                )
            self._by_name[one.name] = Upstream(one)
        self.line = WaitingLine()

    def check(self) -> None:
        """Read the keys and certificates of all, and import what sends requests. Raises: SettingsError."""
        for upstream in self._by_name.values():
            _ = upstream.connection
        if self._by_name:
            import edgeagent.serving.upstreams.upstream_answer  # noqa: F401

    def all(self) -> list[Upstream]:
        return list(self._by_name.values())

    @property
    def models(self) -> dict[str, list[Upstream]]:
        """The upstreams of each model."""
        found: dict[str, list[Upstream]] = {}
        for upstream in self._by_name.values():
            for model_id in upstream.settings.models:
                found.setdefault(model_id, []).append(upstream)
        return found

    def of(self, model_id: str) -> list[Upstream]:
        return [one for one in self._by_name.values() if model_id in one.settings.models]

    def access(self, model_id: str) -> tuple[Access, ...]:
        """Who may use a model; empty for one that no upstream has."""
        return tuple(one.access for one in self.of(model_id))

    def listing(self, key_id: str, owner: str) -> list[str]:
        """The models that requests of this key may be sent to."""
        return [
            model_id
            for model_id, upstreams in self.models.items()
            if any(one.access.admits_key(key_id, owner) for one in upstreams)
        ]

    def admitted(self, model_id: str, sender: Sender) -> list[Upstream]:
        """The upstreams of a model that may be sent this request. Raises: Forbidden where none may."""
        found = [one for one in self.of(model_id) if one.access.admits(sender)]
        if not found:
            why = (
                "its privacy keeps it on this device"
                if sender.privacy == "local"
                else f"neither this key nor the privacy {sender.privacy!r} allows that"
            )
            raise Forbidden(
                f"Model {model_id!r} answers elsewhere, and this request may not be sent there: {why}. Name "
                "another model, or let the administrator change `keys` or `privacy` of the upstream.",
                param="model",
            )
        return found

    @asynccontextmanager
    async def lease(self, model_id: str, sender: Sender) -> AsyncIterator[UpstreamClient]:
        """A client for one request. Opens nothing. Raises: Forbidden; UpstreamUnavailable while all are
        avoided."""
        admitted = self.admitted(model_id, sender)
        if not sender.may_go_on:
            raise circle(sender.n_hops)
        waits = [one.state(model_id).cooling_s for one in admitted]
        if min(waits) > 0:
            raise UpstreamUnavailable(
                f"Model {model_id} answers elsewhere, and its engines have failed lately: try again, or name "
                "another model.",
                retry_after_s=min(waits),
            )
        yield UpstreamClient(model_id, sender, admitted, self)

    async def close(self) -> None:
        for upstream in self._by_name.values():
            with suppress(Exception):  # a connection that is broken is closed
                await upstream.connection.close()
