"""What is told of an answer from memory: the log and the trace name the same id."""

import io
import json

import pytest

from app.platform.http.hotpath import Form, HotPath
from app.platform.resilience.drain import Drain
from app.platform.telemetry.context import RequestContext
from app.platform.telemetry.logs import AccessLog
from app.platform.telemetry.traces import Finished, Tracer

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode()


async def told(traceparent: bytes | None, share: float) -> tuple[str | None, list[str]]:
    """The trace's id in the log, and those of the traces."""
    traces: list[Finished] = []
    tracer = Tracer(share=share, slow_seconds=1.0)
    tracer.export = traces.append
    stream = io.BytesIO()
    log = AccessLog("json", stream)
    line = log.template(RequestContext("one", method="GET", path="/things", route="/things"), 200)
    form = Form(200, [], 0, 0, None, None, b"", line, None, "/things")
    HotPath(access_log=log, metrics=None, drain=Drain(), tracer=tracer)._tell(form, "one", traceparent, {}, 0.001)
    log.flush()
    return json.loads(stream.getvalue())["trace_id"], [finished.trace.trace_id for finished in traces]


@pytest.mark.parametrize("traceparent", [None, b"nonsense", TRACEPARENT])
async def test_the_log_names_the_trace_that_is_told(traceparent: bytes | None) -> None:
    logged, traces = await told(traceparent, share=1.0)
    assert [logged] == traces
    assert (logged == TRACE_ID) is (traceparent == TRACEPARENT)


async def test_without_a_trace_it_names_the_one_that_was_sent() -> None:
    assert await told(TRACEPARENT, share=0.0) == (TRACE_ID, [])
    assert await told(None, share=0.0) == (None, [])
