"""Statements and connections are counted, for the request and for Prometheus, and statements say their route."""

from time import perf_counter
from typing import Any

from sqlalchemy import ExceptionContext, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.platform.postgres import metrics, operations
from app.platform.postgres.labels import route_comment
from app.platform.telemetry.context import current
from app.platform.telemetry.traces import MAX_STATEMENT_CHARACTERS


class Meter:
    """What is counted at each statement that goes to one server. Moments are of `perf_counter`."""

    def __init__(self, server: str) -> None:
        self.server = server
        self._queries = metrics.QUERIES.labels(server).inc
        self._seconds = metrics.QUERY_SECONDS.labels(server).inc

    def labelled(self, sql: str) -> str:
        return route_comment(current().route) + sql

    def sending(self) -> float:
        current().queries += 1
        self._queries()
        return perf_counter()

    def answered(self, sent: float, rows: int, sql: str) -> None:
        """`rows` is negative where the driver doesn't tell."""
        seconds = perf_counter() - sent
        context = current()
        context.query_seconds += seconds
        self._seconds(seconds)
        operations.count(seconds, rows)
        if context.trace is not None:
            context.trace.add(operations.operation.get(), sent, self._described(sql, rows))

    def failed(self, sent: float, sql: str, error: BaseException) -> None:
        if (trace := current().trace) is not None:
            trace.add(operations.operation.get(), sent, self._described(sql, -1), error=type(error).__name__)

    def _described(self, sql: str, rows: int) -> dict[str, str | int]:
        """The statement with its route, and with placeholders where the values were: those are private."""
        names = {"db.system.name": "postgresql", "headroom.server": self.server}
        return {**names, "db.query.text": sql[:MAX_STATEMENT_CHARACTERS], "db.response.returned_rows": rows}


def instrument(engine: AsyncEngine, meter: Meter) -> None:
    def before(connection: Any, cursor: Any, statement: str, parameters: Any, execution: Any, many: bool) -> Any:
        execution.sent_at = meter.sending()
        return meter.labelled(statement), parameters

    def after(connection: Any, cursor: Any, statement: str, parameters: Any, execution: Any, many: bool) -> None:
        meter.answered(execution.sent_at, cursor.rowcount, statement)

    def failed(failure: ExceptionContext) -> None:
        sent: float | None = getattr(failure.execution_context, "sent_at", None)
        if sent is not None:
            meter.failed(sent, failure.statement or "", failure.original_exception)

    def taken(connection: Any, record: Any, proxy: Any) -> None:
        """In place of `pool_pre_ping`, which costs a round trip: the socket knows already when the server is gone."""
        if connection.driver_connection.is_closed():
            raise DisconnectionError
        record.info["taken"] = perf_counter()

    def given_back(connection: Any, record: Any) -> None:
        if (taken_at := record.info.pop("taken", None)) is not None:
            held = metrics.HOLD_SECONDS.labels(meter.server, current().route)
            held.observe(perf_counter() - taken_at)

    event.listen(engine.sync_engine, "before_cursor_execute", before, retval=True)
    event.listen(engine.sync_engine, "after_cursor_execute", after)
    event.listen(engine.sync_engine, "handle_error", failed)
    event.listen(engine.sync_engine, "checkout", taken)
    event.listen(engine.sync_engine, "checkin", given_back)
