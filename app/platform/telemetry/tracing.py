"""Traces for as long as the process lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread

from app.platform.telemetry.exemplars import Exemplars
from app.platform.telemetry.multiprocess import exemplars_file
from app.platform.telemetry.traces import Finished, Tracer


@asynccontextmanager
async def tracing(
    tracer: Tracer | None, endpoint: str | None, *, instance: str, release: str, environment: str
) -> AsyncIterator[None]:
    """Where there is no endpoint nothing is imported, and no thread is started."""
    if tracer is None or endpoint is None:
        yield
        return
    from app.platform.telemetry.otlp import OtlpExport

    export = OtlpExport(endpoint, instance=instance, release=release, environment=environment)
    exemplars = Exemplars(exemplars_file())

    def tell(finished: Finished) -> None:
        export(finished)
        exemplars.note(finished)

    tracer.export = tell
    try:
        yield
    finally:
        tracer.export = None
        await anyio.to_thread.run_sync(export.close)
        exemplars.write()  # last: where the disk is full, it fails
