"""Traces to a collector, by OTLP over HTTP. Imported only where they are on."""

from __future__ import annotations

from collections.abc import Iterator

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from app.platform.telemetry.traces import Finished, Span, Trace

QUEUE = 4_096  # spans; what doesn't fit is dropped, requests don't wait
BATCH = 512
DELAY_MS = 1_000
TIMEOUT_SECONDS = 2
SCOPE = InstrumentationScope("headroom")
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpExport:
    """Hands finished requests to a thread of its own, which sends them once a second."""

    def __init__(self, endpoint: str, *, instance: str, release: str, environment: str) -> None:
        self._resource = Resource(
            {
                "service.name": "headroom",
                "service.version": release,
                "service.instance.id": instance,
                "deployment.environment.name": environment,
            }
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT_SECONDS)
        self._processor = BatchSpanProcessor(
            exporter, max_queue_size=QUEUE, schedule_delay_millis=DELAY_MS, max_export_batch_size=BATCH
        )

    def __call__(self, finished: Finished) -> None:
        for span in self._spans(finished):
            self._processor.on_end(span)

    def close(self) -> None:
        """Sends what is left. Blocking, for a few seconds at most."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _spans(self, finished: Finished) -> Iterator[ReadableSpan]:
        trace, epoch = finished.trace, finished.epoch
        server = _context(trace, trace.span_id)
        yield ReadableSpan(
            name=f"{finished.method} {finished.route}",
            context=server,
            parent=_context(trace, trace.parent_id, remote=True) if trace.parent_id else None,
            resource=self._resource,
            attributes={
                "http.request.method": finished.method,
                "http.route": finished.route,
                "http.response.status_code": finished.status,
                **finished.attributes,
                **({"headroom.spans_left_out": trace.left_out} if trace.left_out else {}),
            },
            kind=SpanKind.SERVER,
            instrumentation_scope=SCOPE,
            status=Status(StatusCode.ERROR if finished.status >= 500 else StatusCode.UNSET),
            start_time=_nanoseconds(finished.started + epoch),
            end_time=_nanoseconds(finished.ended + epoch),
        )
        for span in trace.spans:
            yield self._child(trace, server, span, epoch)

    def _child(self, trace: Trace, parent: SpanContext, span: Span, epoch: float) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_context(trace, span.span_id),
            parent=parent,
            resource=self._resource,
            attributes={**span.attributes, **({"error.type": span.error} if span.error else {})},
            kind=SpanKind.CLIENT,
            instrumentation_scope=SCOPE,
            status=Status(StatusCode.ERROR if span.error else StatusCode.UNSET),
            start_time=_nanoseconds(span.started + epoch),
            end_time=_nanoseconds(span.ended + epoch),
        )


def _context(trace: Trace, span_id: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace.trace_id, 16), span_id, is_remote=remote, trace_flags=SAMPLED)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
