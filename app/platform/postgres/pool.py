"""SQLAlchemy's pool, with a queue in front whose waits end when the server does, and are counted."""

import logging
from time import perf_counter
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_

from app.platform.postgres import metrics
from app.platform.postgres.slots import Slots
from app.platform.resilience.deadlines import remaining
from app.platform.telemetry.context import current

# As SQLAlchemy's own pools, which are named after their module: at INFO they tell of every connection.
logging.getLogger(f"{__name__}.Pool").setLevel(logging.WARNING)

WAIT_SECONDS = 0.001  # a connection at hand takes microseconds


class Pool(AsyncAdaptedQueuePool):
    """Never waits in SQLAlchemy's queue: there is a connection, or room for one, for everybody who holds a slot."""

    def __init__(self, creator: Any, pool_size: int = 5, max_overflow: int = 0, **options: Any) -> None:
        super().__init__(creator, pool_size=pool_size, max_overflow=max_overflow, **options)
        self.server = ""
        self.slots = Slots(pool_size + max_overflow)

    def _do_get(self) -> ConnectionPoolEntry:
        started = perf_counter()
        try:
            await_(self.slots.take(remaining(self._timeout)))
        except TimeoutError:
            metrics.POOL_TIMEOUTS.labels(self.server).inc()
            raise PoolTimeout(f"no connection to {self.server} was free") from None
        try:
            return super()._do_get()
        except BaseException:
            self.slots.give_back()
            raise
        finally:
            if (waited := perf_counter() - started) > WAIT_SECONDS:
                current().waited_seconds += waited
                metrics.POOL_WAITS.labels(self.server).inc()
                metrics.POOL_WAIT_SECONDS.labels(self.server).inc(waited)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._do_return_conn(record)
        finally:
            self.slots.give_back()
