"""A client of upstreams, in place of that of an engine here.

What sends and reads is imported where there are upstreams (`Upstreams.check`): most daemons have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

from edgeagent.errors import UnsupportedParameter
from edgeagent.routing.upstreams.upstream_access import Sender
from edgeagent.serving.upstreams.upstream import Upstream
from edgeagent.types.generation import GenerateSpec

if TYPE_CHECKING:
    from edgeagent.serving.upstreams.upstream_answer import UpstreamGeneration
    from edgeagent.serving.upstreams.upstreams import Upstreams


class UpstreamClient:
    """Answers one request elsewhere. `admitted` are the upstreams that may be sent it."""

    def __init__(
        self, model_id: str, sender: Sender, admitted: Sequence[Upstream], upstreams: Upstreams
    ) -> None:
        self.config = SimpleNamespace(model_id=model_id)
        self.sender = sender
        self.admitted = admitted
        self.upstreams = upstreams

    def generate(self, spec: GenerateSpec) -> UpstreamGeneration:
        """Send a request. Raises: UnsupportedParameter for one that OpenAI's format cannot say."""
        from edgeagent.serving.upstreams.upstream_answer import UpstreamGeneration

        return UpstreamGeneration(self, spec)


def unsupported(model_id: str) -> UnsupportedParameter:
    """The error for what only an engine on this device can do."""
    return UnsupportedParameter(
        f"Model {model_id!r} answers elsewhere: it generates text, and nothing else is asked of it. Name a "
        "model on this device.",
        param="model",
    )
