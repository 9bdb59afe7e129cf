import subprocess
import sys

import pytest

from app.platform.telemetry.context import RequestContext, request_context
from app.platform.telemetry.traces import MAX_SPANS, Finished, Tracer, outgoing

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT}-01".encode()


def finished(share: float, status: int = 200, seconds: float = 0.01, trace_id: str = TRACE_ID) -> list[Finished]:
    told: list[Finished] = []
    tracer = Tracer(share=share, slow_seconds=1.0)
    tracer.export = told.append
    trace = tracer.begin(f"00-{trace_id}-{PARENT}-01".encode())
    context = RequestContext("one", trace=trace, trace_id=trace.trace_id)
    tracer.end(context, trace, status, seconds)
    return told


def test_it_goes_on_where_the_caller_was() -> None:
    [told] = finished(1.0)
    assert told.trace.trace_id == TRACE_ID
    assert f"{told.trace.parent_id:016x}" == PARENT


@pytest.mark.parametrize("sent", [None, b"nonsense", b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01"])
def test_without_a_sound_one_it_begins(sent: bytes | None) -> None:
    first, second = (Tracer(share=1, slow_seconds=1).begin(sent) for _ in range(2))
    assert len(first.trace_id) == 32
    assert first.trace_id != second.trace_id
    assert first.parent_id == 0


def test_a_strangers_word_does_not_decide() -> None:
    assert finished(0.0) == []


def test_what_failed_or_was_slow_is_told_in_any_case() -> None:
    assert len(finished(0.0, status=503)) == 1
    assert len(finished(0.0, seconds=1.5)) == 1


def test_the_share_is_told_by_the_id_alone() -> None:
    """So that every service that keeps a share keeps the same traces."""
    ids = [f"{number:016x}{number * 2**64 // 1_000:016x}" for number in range(1, 1_000)]
    assert sum(len(finished(0.1, trace_id=id_)) for id_ in ids) == pytest.approx(100, abs=1)


def test_hits_that_begin_are_told_by_their_share_too() -> None:
    told: list[Finished] = []
    tracer = Tracer(share=0.1, slow_seconds=1.0)
    tracer.export = told.append
    for _ in range(10_000):
        tracer.hit(None, "/things", 200, 0.001)
    assert 700 < len(told) < 1_300  # ten deviations
    assert all(tracer.keeps(one.trace.trace_id) and len(one.trace.trace_id) == 32 for one in told)


def test_spans_are_bounded() -> None:
    trace = Tracer(share=1, slow_seconds=1).begin(None)
    for _ in range(MAX_SPANS + 5):
        trace.add("redis GET", 0.0, {})
    assert (len(trace.spans), trace.left_out) == (MAX_SPANS, 5)


def test_calls_to_others_carry_the_trace() -> None:
    trace = Tracer(share=1, slow_seconds=1).begin(TRACEPARENT)
    token = request_context.set(RequestContext("one", trace=trace))
    with outgoing("GET /there") as headers:
        pass
    with pytest.raises(OSError), outgoing("GET /nowhere"):  # noqa: PT011
        raise OSError
    request_context.reset(token)
    well, failed = trace.spans
    assert headers == {"traceparent": f"00-{TRACE_ID}-{well.span_id:016x}-01"}
    assert (well.error, failed.error) == (None, "OSError")


def test_outside_of_a_trace_they_carry_none() -> None:
    with outgoing("GET /there") as headers:
        assert headers == {}


def test_off_it_imports_nothing() -> None:
    """redis-py imports some of the SDK wherever it is installed; what makes and sends spans is ours to leave out."""
    left_out = ("opentelemetry.sdk.trace.export", "opentelemetry.exporter", "app.platform.telemetry.otlp")
    found = f"[name for name in sys.modules if name.startswith({left_out})]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, app.main; print({found})"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
