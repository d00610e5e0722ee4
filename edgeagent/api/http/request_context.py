"""The context of one request: what the layers before the routes learn of it, in one typed object."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from litestar.types import Scope

from edgeagent.api.http.body_memory import Body
from edgeagent.api.http.key_limits import Admission
from edgeagent.api.http.shutdown import Shutdown
from edgeagent.errors import EdgeAgentError
from edgeagent.types.caller import Caller

if TYPE_CHECKING:
    from edgeagent.api.http.connection import GuardedProtocol

KEY = "context"


@dataclass
class RequestContext:
    """Each layer fills in its part; a part is None until then, and without the layer.

    `connection` and `shutdown` come from the server, `request_id` from host_and_origin.py, `caller`,
    `admission` and `body` from auth.py, `error` from whatever refuses the request. `timeout_s` and
    `is_stream` are fields of the body (body.py). `is_recorded`: a layer keeps all that is sent.
    """

    connection: GuardedProtocol | None = None
    shutdown: Shutdown = field(default_factory=Shutdown)
    request_id: str = ""
    caller: Caller | None = None
    admission: Admission | None = None
    body: Body | None = None
    error: EdgeAgentError | None = None
    arrived_s: float = field(default_factory=time.monotonic)
    timeout_s: float | None = None
    is_stream: bool = False
    is_recorded: bool = False

    @property
    def known_caller(self) -> Caller:
        """The holder of the key; without keys, the user of this machine."""
        assert self.caller is not None, "auth.py admits nobody without"
        return self.caller

    @property
    def known_admission(self) -> Admission:
        assert self.admission is not None, "auth.py admits nobody without"
        return self.admission

    def charge(self, n_tokens: int) -> None:
        """Count the tokens read and generated so far for the limit of the key. Call before the last byte is
        sent, since the client's next request may follow at once."""
        if self.admission is not None:
            self.admission.charge(n_tokens)


def context_of(scope: Scope) -> RequestContext:
    """The context of the request of `scope`, made where there is none yet."""
    state = scope.setdefault("state", {})
    found = state.get(KEY)
    if not isinstance(found, RequestContext):
        found = state[KEY] = RequestContext()
    return found
