"""Spans of requests for an OpenTelemetry collector, by the conventions for generative AI.

Each request that the log has becomes a span, whose parts are the time in the queue, until the first token and
until the last. Spans have counts and times, as the log, never content, keys or owners. They leave the daemon
only where `[traces] endpoint` is set; the SDK (the extra `traces`) is not imported otherwise.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (conventions of 1.41)
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgeagent.errors import StartFailed
from edgeagent.settings.traces import TracesSettings
from edgeagent.store.requests import RequestRow
from edgeagent.types.loopback import is_loopback
from edgeagent.types.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

logger = logging.getLogger(__name__)

# Spans that wait while the collector is away; more are dropped. A span takes about 2 KB.
MAX_WAITING = 1024
# How long the end of the daemon waits for spans that have not been sent.
CLOSE_S = 2.0
# Of a file with headers or certificates.
MAX_FILE_CHARS = 1 << 20
_OPERATIONS = {
    "/v1/completions": "text_completion",
    "/v1/infill": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/rerank": "rerank",
    "/v2/rerank": "rerank",
}


class RequestTraces:
    """Turns rows of the request log into spans and sends them on a thread of its own.

    Raises: StartFailed without the extra, or if a file of the settings cannot be used. `close` may be called
    twice.
    """

    def __init__(self, settings: TracesSettings, *, is_offline: bool = False) -> None:
        assert settings.endpoint is not None
        host = urlsplit(settings.endpoint).hostname or ""
        if is_offline and not is_loopback(host):
            raise StartFailed(
                f"traces.endpoint is on another machine ({host}) and offline = true refuses that: use a "
                "collector on this machine, or remove one of the two settings."
            )
        headers = _headers(settings.headers_file)
        if settings.ca_file is not None:
            _read(settings.ca_file, "traces.ca_file")
        self._provider: TracerProvider | None = _provider(settings, headers)
        self._tracer = self._provider.get_tracer("edgeagent", VERSION)
        logger.info("traces endpoint=%s sample_ratio=%s", settings.endpoint, settings.sample_ratio)

    def add(self, row: RequestRow) -> None:
        """Queue the span of a request that has ended; takes no time to speak of. Any thread."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = None
        if row.traceparent is not None:
            parent = TraceContextTextMapPropagator().extract({"traceparent": row.traceparent})
        end_ms = float(row.created_ms)
        start_ms = end_ms - row.total_ms
        span = self._tracer.start_span(
            f"{operation_of(row)} {row.model}",
            parent,
            SpanKind.SERVER,
            attributes_of(row),
            start_time=_ns(start_ms),
        )
        if row.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        if span.is_recording():
            context = set_span_in_context(span)
            for name, begin_ms, until_ms in phases_of(row):
                part = self._tracer.start_span(name, context, start_time=_ns(start_ms + begin_ms))
                part.end(_ns(start_ms + until_ms))
        span.end(_ns(end_ms))

    async def close(self) -> None:
        """Send what is waiting, for a short while."""
        provider, self._provider = self._provider, None
        if provider is None:
            return
        # The SDK waits for a collector that does not answer, whatever time it is given. A daemon thread is
        # left behind at the end of the process, which a thread of the event loop's pool would hold up.
        ending = threading.Thread(target=provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_S)
        if ending.is_alive():
            logger.warning(
                "traces_not_sent hint='the collector of traces.endpoint does not answer'"
            )


def operation_of(row: RequestRow) -> str:
    """`gen_ai.operation.name` of a request."""
    if row.audio_s is not None:
        return "transcription"
    return _OPERATIONS.get(row.endpoint, "chat")


def attributes_of(row: RequestRow) -> dict[str, Any]:
    """The attributes of the span of a request; what is unknown is left out."""
    found: dict[str, Any] = {
        "gen_ai.operation.name": operation_of(row),
        "gen_ai.provider.name": "edgeagent",
        "gen_ai.request.model": row.model,
        "gen_ai.response.model": row.model,
        "gen_ai.response.id": row.id,
        "gen_ai.usage.input_tokens": row.n_prompt,
        "gen_ai.usage.output_tokens": row.n_generated,
        "gen_ai.usage.cache_read.input_tokens": row.n_cached,
        "http.route": row.endpoint,
        "http.response.status_code": row.status,
        "edgeagent.route.reason": row.route,
    }
    if row.status >= 400:
        found["error.type"] = str(row.status)
    if row.finish:
        found["gen_ai.response.finish_reasons"] = row.finish.split(",")
    others = {
        "edgeagent.route": row.route_name,
        "edgeagent.route.rule": row.rule,
        "edgeagent.time_to_first_token_ms": row.ttft_ms,
        "edgeagent.time_per_output_token_ms": row.tpot_ms,
        "edgeagent.audio_s": row.audio_s,
        "edgeagent.energy_j": row.energy_j,
    }
    return found | {name: value for name, value in others.items() if value is not None}


def phases_of(row: RequestRow) -> list[tuple[str, float, float]]:
    """Name, begin and end of each part of a request, in milliseconds from its arrival.

    The engine measures from when it got the request; what comes before (a model that is loaded first) is
    the part `load`.
    """
    if row.ttft_ms is None or row.queue_ms is None:
        return []
    n_gaps = max(row.n_generated - 1, 0)
    in_engine_ms = row.ttft_ms + n_gaps * (row.tpot_ms or 0.0)
    before_ms = max(0.0, row.total_ms - in_engine_ms)
    bounds = [0.0, before_ms, before_ms + row.queue_ms, before_ms + row.ttft_ms, row.total_ms]
    bounds = [min(bound, row.total_ms) for bound in bounds]
    names = ("load", "queue", "prefill", "decode")
    return [
        (name, begin, until)
        for name, begin, until in zip(names, bounds, bounds[1:], strict=False)
        if until > begin
    ]


def _provider(settings: TracesSettings, headers: dict[str, str]) -> TracerProvider:
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as exc:
        raise StartFailed(
            f"traces.endpoint needs OpenTelemetry, which is not installed ({exc.name}): "
            "pip install 'edgeagent[traces]', or remove the setting."
        ) from exc
    session = requests.Session()
    session.trust_env = False  # no proxies: spans go to the collector that is named
    session.max_redirects = 0
    exporter = OTLPSpanExporter(
        settings.endpoint,
        certificate_file=str(settings.ca_file) if settings.ca_file else None,
        headers=headers,
        timeout=settings.timeout_s,
        session=session,
    )
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Reported` says it once
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        resource=Resource.create({"service.name": "edgeagent", "service.version": VERSION}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            _reported(exporter),
            max_queue_size=MAX_WAITING,
            max_export_batch_size=MAX_WAITING // 4,
            schedule_delay_millis=1e3 * settings.interval_s,
            export_timeout_millis=1e3 * settings.timeout_s,
        )
    )
    return provider


def _reported(exporter: SpanExporter) -> SpanExporter:
    """The exporter, with a line in the log when the collector goes away and when it is back."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Reported(SpanExporter):
        def __init__(self) -> None:
            self._n_lost = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = exporter.export(spans)
            if result is SpanExportResult.SUCCESS:
                if self._n_lost:
                    logger.warning("traces_sent_again n_lost=%d", self._n_lost)
                self._n_lost = 0
            else:
                if not self._n_lost:
                    logger.warning("traces_lost hint='is the collector of traces.endpoint up?'")
                self._n_lost += len(spans)
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Reported()


def _headers(path: Path | None) -> dict[str, str]:
    """Raises: StartFailed."""
    if path is None:
        return {}
    found = {}
    for number, line in enumerate(_read(path, "traces.headers_file").splitlines(), 1):
        name, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon or not name.strip() or not name.strip().isascii():
            raise StartFailed(f"{path}, line {number}: write `name: value` (traces.headers_file).")
        found[name.strip().lower()] = value.strip()
    return found


def _read(path: Path, setting: str) -> str:
    """Raises: StartFailed."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_FILE_CHARS + 1)
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise StartFailed(f"{setting}: cannot read {path}: {reason}.") from exc
    if len(text) > MAX_FILE_CHARS:
        raise StartFailed(f"{setting}: {path} has more than {MAX_FILE_CHARS} characters.")
    return text


def _ns(ms: float) -> int:
    return int(1e6 * ms)
