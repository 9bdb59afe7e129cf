"""How the memory tiers of all processes stay coherent: leases, after Gray and Cheriton ("Leases: an efficient
fault-tolerant mechanism for distributed file cache consistency", SOSP 1989).

All processes listen to one channel of Redis. Each sends a heartbeat there, and holds a lease of `LEASE_SECONDS` from
the moment at which it sent the last one that came back. A channel keeps its order: a process that has its heartbeat
back has heard of every invalidation that was published before it.

A writer publishes what it invalidates, after COMMIT and in the script that ends the tags' generations, and its answer
waits until every other process has acknowledged, or can have no lease any more. So nobody is served from memory what
lacks an acknowledged write, on whichever process, and a read takes no trip to Redis. A process that was frozen finds
its lease over when it wakes up; one that lost its connection begins with an empty memory.

Bounds. A write waits for the slowest process that lives, and at most `LEASE_SECONDS` for one that is frozen or cut off
(and not for long: after that it is known to have no lease). When Redis dies all leases end within `LEASE_SECONDS`: a
write that can't be published waits for that, and after it nobody waits. A writer that alone is cut off from Redis
leaves the others with what they have in memory until it is back (see `Tags`) or their time to live is over. Clocks may
drift apart by `DRIFT`. A virtual machine that is paused together with its clock may, when it goes on, serve what it
had for the rest of its lease, or until it has read its connection, whichever comes first.
"""

import asyncio
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count

from prometheus_client import Counter, Histogram
from redis.exceptions import RedisError

from app.platform.cache.memory import MemoryTier
from app.platform.cache.peers import Peers
from app.platform.redis import Message, RedisClient

LEASE_SECONDS = 0.5
HEARTBEAT_SECONDS = 0.1
DRIFT = 0.1  # of a lease
SILENCE_SECONDS = 2.0  # without a message, not even the own heartbeat, the connection is given up
RECONNECT_SECONDS = 0.25
CHANNEL = "cache:{invalidations}"  # with a hash tag, which the channels of the acknowledgements share

WAITS = Histogram(
    "cache_invalidation_wait_seconds",
    "Time that a write waited for the memory tiers of the other processes",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
UNACKNOWLEDGED = Counter("cache_invalidations_unacknowledged_total", "Writes that waited for a lease to end")


class Round:
    """One invalidation, until all have acknowledged it."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.waiting: set[str] | None = None  # None: not known yet
        self.over = asyncio.Event()

    def begin(self, peers: set[str] | None) -> None:
        """It came back, and with it everything that was published before."""
        self.waiting = peers
        if peers is not None and not peers:
            self.over.set()

    def acknowledged(self, peer: str) -> None:
        if self.waiting is not None:
            self.waiting.discard(peer)
            if not self.waiting:
                self.over.set()


class Coherence:
    """Of one process: moves its memory's lease on, and tells the others what is void. `await start()`, `aclose()`."""

    def __init__(self, redis: RedisClient, memory: MemoryTier) -> None:
        self._redis = redis
        self._memory = memory
        self._name = secrets.token_hex(8)
        self._acknowledgements = f"{CHANNEL}:{self._name}"
        self._peers = Peers(LEASE_SECONDS * (1 + DRIFT))
        self._rounds: dict[int, Round] = {}
        self._numbers = count(1)
        self._heard_at = 0.0  # any message
        self._is_listening = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Needs no Redis: it is waited for in the background."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._beat())]

    async def aclose(self) -> None:
        self._memory.lease_until = 0.0
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def round(self, tags: Collection[str]) -> Iterator[Round]:
        """To publish `message` on `CHANNEL` in, and then to wait for `acknowledged`, or, if that failed, `lapsed`."""
        number = next(self._numbers)
        round = self._rounds[number] = Round(" ".join(("void", self._name, str(number), *tags)))
        try:
            yield round
        finally:
            del self._rounds[number]

    async def acknowledged(self, round: Round) -> None:
        """Wait until nobody serves from memory what the round made void."""
        if not self._tasks:
            return
        started = time.monotonic()
        try:
            async with asyncio.timeout(LEASE_SECONDS * (1 + DRIFT)):
                await round.over.wait()
        except TimeoutError:
            UNACKNOWLEDGED.inc()
        WAITS.observe(time.monotonic() - started)

    async def lapsed(self) -> None:
        """Wait until the leases of all who lost Redis when this process did are over."""
        last_lease = self._heard_at + HEARTBEAT_SECONDS + LEASE_SECONDS * (1 + DRIFT)
        await asyncio.sleep(max(0.0, last_lease - time.monotonic()))

    async def _listen(self) -> None:
        while True:
            # A message that can't be read (of another release, say) may have been an invalidation: begin anew.
            with suppress(RedisError, OSError, TimeoutError, ValueError, LookupError):
                async with self._redis.subscription(CHANNEL, self._acknowledgements) as next_message:
                    self._begin()
                    while True:
                        self._receive(await next_message(SILENCE_SECONDS))
            self._end()
            await asyncio.sleep(RECONNECT_SECONDS)

    def _begin(self) -> None:
        now = self._heard_at = time.monotonic()
        self._memory.clear()
        self._peers.restart(now)
        self._is_listening = True
        self._send_heartbeat()

    def _end(self) -> None:
        self._is_listening = False
        self._memory.lease_until = 0.0

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if self._is_listening:
                self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        self._publish(CHANNEL, f"beat {self._name} {time.monotonic()!r}")

    def _publish(self, channel: str, message: str) -> None:
        with suppress(RedisError):
            self._redis.submit("PUBLISH", channel, message)

    def _receive(self, message: Message) -> None:
        now = self._heard_at = time.monotonic()
        kind, sender, *rest = message.data.decode().split(" ")
        if kind == "ack":
            if (round := self._rounds.get(int(rest[0]))) is not None:
                round.acknowledged(sender)
        elif kind == "beat":
            if sender == self._name:
                self._memory.lease_until = float(rest[0]) + LEASE_SECONDS
            else:
                self._peers.heard(sender, now)
        elif kind == "void":
            number, *tags = rest
            self._memory.invalidate(tags)
            if sender != self._name:
                self._publish(f"{CHANNEL}:{sender}", f"ack {self._name} {number}")
            elif (round := self._rounds.get(int(number))) is not None:
                round.begin(self._peers.with_lease(now))
