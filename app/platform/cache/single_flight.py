"""Single flight: what many ask for at once is made once, and given to all of them."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    passengers: int = 0


class SingleFlight(Generic[T]):
    """Within one process. There are never more flights than callers waiting."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether `run` would join a flight that is under way."""
        return key in self._flights

    async def run(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `make` returns or raises.

        The flight outlives the caller that started it as long as anybody waits, and is cancelled when nobody does.
        """
        flight = self._flights.get(key) or self._start(key, make)
        flight.passengers += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.passengers -= 1
            if not flight.passengers:
                self._forget(key, flight)
                flight.task.cancel()

    def _start(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> _Flight[T]:
        flight = self._flights[key] = _Flight(asyncio.create_task(make()))
        # Before any passenger wakes up: who comes later is not given what is over already.
        flight.task.add_done_callback(lambda _: self._forget(key, flight))
        return flight

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
