"""Statements and connections are counted, for the request and for Prometheus, and statements say their route."""

from time import perf_counter
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.platform.postgres import metrics
from app.platform.postgres.labels import route_comment
from app.platform.telemetry.context import current


def instrument(engine: AsyncEngine, server: str) -> None:
    queries = metrics.QUERIES.labels(server).inc
    query_seconds = metrics.QUERY_SECONDS.labels(server).inc

    def before(connection: Any, cursor: Any, statement: str, parameters: Any, execution: Any, many: bool) -> Any:
        context = current()
        context.queries += 1
        queries()
        execution.sent_at = perf_counter()
        return route_comment(context.route) + statement, parameters

    def after(connection: Any, cursor: Any, statement: str, parameters: Any, execution: Any, many: bool) -> None:
        seconds = perf_counter() - execution.sent_at
        current().query_seconds += seconds
        query_seconds(seconds)

    def taken(connection: Any, record: Any, proxy: Any) -> None:
        """In place of `pool_pre_ping`, which costs a round trip: the socket knows already when the server is gone."""
        if connection.driver_connection.is_closed():
            raise DisconnectionError
        record.info["taken"] = perf_counter()

    def given_back(connection: Any, record: Any) -> None:
        if (taken_at := record.info.pop("taken", None)) is not None:
            metrics.HOLD_SECONDS.labels(server, current().route).observe(perf_counter() - taken_at)

    event.listen(engine.sync_engine, "before_cursor_execute", before, retval=True)
    event.listen(engine.sync_engine, "after_cursor_execute", after)
    event.listen(engine.sync_engine, "checkout", taken)
    event.listen(engine.sync_engine, "checkin", given_back)
