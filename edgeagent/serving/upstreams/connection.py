"""HTTP to one upstream. The only module of the serving path that opens connections to other machines.

httpx is imported when the first upstream is opened, so that a daemon without upstreams does not hold it. No
redirect is followed, nothing is decompressed, no proxy or other setting of the environment is used.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from edgeagent.errors import SettingsError
from edgeagent.routing.upstreams.faults import Fault, error_code, kind_of_status, retry_after
from edgeagent.settings.upstreams import UpstreamSettings

if TYPE_CHECKING:
    import httpx

MAX_ERROR_BYTES = 16 << 10
ERROR_S = 2.0  # what the text of an error may take
MAX_TEXT = 300
MAX_KEY_BYTES = 4096
# Connections that are kept for the next request, and for how long: less than engines keep them.
MAX_IDLE, IDLE_S = 4, 4


class Connection:
    """Event loop's thread only; `close()` may be called twice. Raises: SettingsError for a key or CA."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._key = read_key(settings)
        self._tls = _tls_context(settings)
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def _open(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._make)
            return self._client

    def _make(self) -> httpx.AsyncClient:
        import httpx

        # httpx imports it with the first connection, on the event loop, which takes 20 ms.
        with suppress(ImportError):
            importlib.import_module("anyio._backends._asyncio")
        # Their records would name every request, and at debug level the headers.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        settings = self._settings
        headers = {"accept-encoding": "identity", "user-agent": "edgeagent"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return httpx.AsyncClient(
            verify=self._tls,
            headers=headers,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(settings.timeout_s, connect=settings.connect_timeout_s),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=MAX_IDLE, keepalive_expiry=IDLE_S
            ),
        )

    async def check(self) -> None:
        """Ask for its models, as a health check. Raises: Fault."""
        limit_s = self._settings.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s), self._exchange("GET", "/models", None):
                return
        except (TimeoutError, Fault) as exc:
            why = exc.text if isinstance(exc, Fault) else f"nothing came for {limit_s:g} s"
            raise Fault("unreachable", f"its health check failed: {why}") from None

    @asynccontextmanager
    async def answer(
        self, path: str, body: dict[str, Any], n_hops: int = 0
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a stream of events. `n_hops`: daemons that the request comes through, this one
        included. Raises: Fault."""
        content = msgspec.json.encode(body)
        async with self._exchange("POST", path, content, n_hops) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "text/event-stream":
                raise Fault(
                    "nonsense",
                    f"its answer is of type {printable(kind, 60)!r}, and no stream of events",
                )
            yield self._pieces(response)

    async def _pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        with _faults(self._settings, has_answered=True):
            async for data in response.aiter_raw():
                yield data

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, content: bytes | None, n_hops: int = 0
    ) -> AsyncIterator[httpx.Response]:
        client = await self._open()
        headers = {}
        if content is not None:
            headers = {"content-type": "application/json", "x-edgeagent-hops": str(n_hops)}
        with _faults(self._settings, has_answered=False):
            url = self._settings.url + path
            request = client.build_request(method, url, content=content, headers=headers)
            response = await self._send(client, request)
        try:
            await self._check_head(response, is_check=content is None)
            yield response
        finally:
            # A response that was not read to its end closes its connection, which cancels it there.
            await response.aclose()

    async def _send(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        """Send a request. A connection that was kept open may have been closed by the upstream at this
        moment, without an answer: the request is then sent again over another one, unless `repeats` forbids
        it. Raises what httpx raises.
        """
        import httpx

        for _ in range(MAX_IDLE):
            path = ConnectionPath()
            request.extensions["trace"] = path.note
            try:
                return await client.send(request, stream=True)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as exc:
                is_reply = isinstance(exc, httpx.RemoteProtocolError) and not _is_end(exc)
                if is_reply or path.is_new or self._settings.repeats == "refused":
                    raise
        return await client.send(request, stream=True)

    async def _check_head(self, response: httpx.Response, *, is_check: bool) -> None:
        """Raises: Fault for a status other than 200, and for an encoding that was not asked for."""
        kind = kind_of_status(response.status_code)
        if (
            is_check
            and kind in ("rejected", "denied", "absent", "invalid")
            and response.status_code >= 400
        ):
            return  # it is alive; whether a request succeeds shows with the next one
        if kind is not None:
            code, text = "", ""
            if kind in ("invalid", "busy"):
                code, text = await self._explanation(response)
            said = f"it answered {response.status_code}" + (f" ({text})" if text else "")
            wait_s = retry_after(response.headers.get("retry-after")) if kind == "busy" else None
            raise Fault(kind, said, retry_after_s=wait_s, code=code)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise Fault("nonsense", "its answer is compressed, which was not asked for")

    async def _explanation(self, response: httpx.Response) -> tuple[str, str]:
        """Code and message of an error, as OpenAI has them; empty where it has none."""
        found = b""
        try:
            async with asyncio.timeout(ERROR_S):
                async for data in self._pieces(response):
                    found += data
                    if len(found) > MAX_ERROR_BYTES:
                        return "", ""
            error = msgspec.json.decode(found)["error"]
            code, text = error_code(error), error.get("message")
        except (
            Fault,
            TimeoutError,
            msgspec.DecodeError,
            RecursionError,
            LookupError,
            TypeError,
            AttributeError,
        ):
            return "", ""
        return code, printable(text) if isinstance(text, str) else ""

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


class ConnectionPath:
    """Whether a request has opened a connection of its own, by the events of httpcore."""

    def __init__(self) -> None:
        self.is_new = False

    async def note(self, event: str, info: Any) -> None:
        self.is_new |= event.startswith("connection.connect_tcp")


class _faults:  # noqa: N801  used as a function
    """Translates what httpx raises into `Fault`. `has_answered`: the head of the response has come."""

    def __init__(self, settings: UpstreamSettings, *, has_answered: bool) -> None:
        self._settings = settings
        self._has_answered = has_answered

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: Any
    ) -> None:
        import httpx

        if isinstance(exc, httpx.InvalidURL | UnicodeError):
            raise Fault("rejected", "its address is not valid") from None
        if isinstance(exc, httpx.ConnectTimeout):
            raise Fault(
                "unreachable", f"no connection in {self._settings.connect_timeout_s:g} s"
            ) from None
        if isinstance(exc, httpx.ConnectError | ssl.SSLError):
            raise Fault("unreachable", _why_unreachable(exc)) from None
        if isinstance(exc, httpx.TimeoutException):
            raise Fault("silent", f"nothing came for {self._settings.timeout_s:g} s") from None
        if isinstance(exc, httpx.RemoteProtocolError) and not _is_end(exc):
            is_cut = "incomplete" in str(exc) or "without closing" in str(exc)
            if not is_cut:
                raise Fault("nonsense", "what it sends is not HTTP") from None
        if isinstance(exc, httpx.HTTPError | httpx.StreamError):
            where = "within its answer" if self._has_answered else "before it answered"
            raise Fault("broken", f"it has ended the connection {where}") from None


def _is_end(exc: BaseException) -> bool:
    """Whether a connection ended before a byte of the answer, as httpcore words it."""
    return "disconnected" in str(exc)


def _why_unreachable(exc: BaseException) -> str:
    """Why there is no connection, without addresses that the settings do not show to clients."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({printable(cause.verify_message, 120)})"
        if isinstance(cause, ssl.SSLError):
            return "no TLS connection"
        cause = cause.__cause__ or cause.__context__
    return "no connection"


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """A text of the upstream that can be shown on one line."""
    return "".join(char if char.isprintable() else " " for char in text[:limit])


def read_key(settings: UpstreamSettings) -> str:
    """The API key for an upstream; empty without one. Raises: SettingsError."""
    path, where = settings.key_path, f"Upstream {settings.name}"
    if path is None and settings.credential is not None:
        raise SettingsError(
            f"{where}: there is no credential {settings.credential!r}: add LoadCredential= to the "
            "service, or use key_file."
        )
    if path is None:
        return ""
    try:
        if settings.key_file is not None and path.stat().st_mode & 0o077:
            raise SettingsError(
                f"{where}: others may read the key file {path}: run `chmod 600 {path}`."
            )
        with path.open("rb") as file:
            key = file.read(MAX_KEY_BYTES + 1).strip().decode("ascii")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"{where}: the key in {path} cannot be read ({type(exc).__name__}): correct the file."
        ) from exc
    if not key or len(key) > MAX_KEY_BYTES or not key.isprintable() or " " in key:
        raise SettingsError(
            f"{where}: the key in {path} is not one line of 1 to {MAX_KEY_BYTES} printable characters: "
            "correct the file."
        )
    return key


def _tls_context(settings: UpstreamSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer; with `ca_file` no other authority counts. Raises: SettingsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca_file is None:
        if settings.url.startswith("https:"):
            context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(
            f"Upstream {settings.name}: ca_file {settings.ca_file} has no certificates that can be read "
            f"({type(exc).__name__}): give a PEM file."
        ) from exc
    return context
