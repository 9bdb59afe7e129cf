"""Redis Cluster: many masters, each with some of the 16,384 slots that keys are hashed to.

As https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding has it: a
command goes to the node that has its key's slot by our map; MOVED corrects the map, ASK is for that command alone. Each
node has a connection and a breaker of its own, so one that is away takes its own slots with it and no others.

What a node answers with a redirection it has not carried out, so sending it on repeats nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError

from app.platform.redis.client import Argument, Message, RedisClient, RedisStats
from app.platform.redis.link import RedisUnavailable
from app.platform.redis.urls import RedisUrl, connect_by
from app.platform.resilience.breaker import CircuitBreaker, State

SLOTS = 16_384
MAX_NODES = 1_000
MAX_REDIRECTIONS = 5
REFRESH_SECONDS = 0.25  # between two looks at the cluster, at least
KEY_POSITIONS = {"EVALSHA": 2, "EVAL": 2}  # among the arguments; of all others it is the first
WITHOUT_KEY = frozenset(("PING",))
WORST: tuple[State, ...] = ("closed", "half_open", "open")


class RedisCluster(RedisClient):
    """The same client for a cluster. All keys of a command or script have to lie in one slot, by their hash tag.

    `PUBLISH` and `subscription` go to the node that has the channel's slot, so that messages keep their order as they
    do with one server; channels that are subscribed together have to share a hash tag too.
    """

    is_cluster = True

    def __init__(self, url: str, *, timeout_seconds: float, new_breaker: Callable[[str], CircuitBreaker]) -> None:
        self._url = RedisUrl.parse(url)
        self._timeout_seconds = timeout_seconds
        self._new_breaker = new_breaker
        self._nodes: dict[str, RedisClient] = {}
        self._owners: list[str] = []  # by slot; empty until the cluster has been looked at
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -REFRESH_SECONDS
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def use_url(self, url: str) -> None:
        self._url = RedisUrl.parse(url)
        for address, node in self._nodes.items():
            node.use_url(self._url.of(address))

    def submit(self, command: str, *arguments: Argument) -> asyncio.Future[Any]:
        if self._closed:
            raise RedisUnavailable("closed")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        order = _Order(self, slot_of(command, arguments), (command, *arguments), answer)
        if self._owners:
            order.send(self.owner(order.slot))
        else:
            task = asyncio.create_task(self._send_when_known(order))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return answer

    @asynccontextmanager
    async def subscription(self, *channels: str) -> AsyncIterator[Callable[[float], Awaitable[Message]]]:
        await self._known()
        owner = self.owner(key_slot(channels[0].encode()))
        async with owner.subscription(*channels) as next_message:
            yield next_message

    async def ping(self) -> float:
        """Of the slowest master."""
        await self._known()
        return max(await asyncio.gather(*(self.node(address).ping() for address in set(self._owners))))

    def stats(self) -> RedisStats:
        each = [self.node(address).stats() for address in set(self._owners)]
        worst: State = max((stats.breaker for stats in each), key=WORST.index, default="closed")
        connected = bool(each) and all(stats.connected for stats in each)
        return RedisStats(worst, connected, sum(stats.outstanding for stats in each))

    async def aclose(self) -> None:
        self._closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(node.aclose() for node in self._nodes.values()))

    def node(self, address: str) -> RedisClient:
        if address not in self._nodes:
            if len(self._nodes) >= MAX_NODES:
                raise RedisUnavailable("queue_full", "more nodes than a cluster can have")
            connect = connect_by(self._url.of(address), self._timeout_seconds)
            breaker = self._new_breaker(f"redis {address}")
            self._nodes[address] = RedisClient(connect, timeout_seconds=self._timeout_seconds, breaker=breaker)
        return self._nodes[address]

    def owner(self, slot: int) -> RedisClient:
        if not (address := self._owners[slot]):
            self.look_again()
            raise RedisUnavailable("no_master", f"nobody has slot {slot}")
        return self.node(address)

    def moved(self, slot: int, address: str) -> None:
        self._owners[slot] = address
        self.look_again()

    def look_again(self) -> None:
        """Something is not as the map has it."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())

    async def _send_when_known(self, order: "_Order") -> None:
        try:
            await self._known()
            order.send(self.owner(order.slot))
        except RedisError as error:
            order.fail(error)

    async def _known(self) -> None:
        """Wait for a first look at the cluster. Raises RedisUnavailable."""
        if not self._owners:
            self.look_again()
            assert self._refreshing is not None
            await asyncio.shield(self._refreshing)
        if not self._owners:
            raise RedisUnavailable("no_master", "no node tells of the cluster")

    async def _refresh(self) -> None:
        if self._owners:
            await asyncio.sleep(max(0.0, self._refreshed_at + REFRESH_SECONDS - time.monotonic()))
        known = dict.fromkeys((*filter(None, self._owners), *self._url.hosts))
        questions = [asyncio.ensure_future(self._ask(address)) for address in known]
        try:
            for answer in asyncio.as_completed(questions):
                with suppress(RedisError):
                    self._owners = await answer
                    break
        finally:
            for question in questions:
                question.cancel()
        self._refreshed_at = time.monotonic()

    async def _ask(self, address: str) -> list[str]:
        """Who has which slot, as this node sees it."""
        ranges = await self.node(address).execute("CLUSTER", "SLOTS")
        owners = [""] * SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            name = host.decode() or address.rpartition(":")[0]
            owners[first : last + 1] = [f"{name}:{port}"] * (last + 1 - first)
        return owners


class _Order:
    """One command on its way, from node to node if need be."""

    __slots__ = ("_answer", "_cluster", "_command", "_redirections", "slot")

    def __init__(self, cluster: RedisCluster, slot: int, command: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        self._cluster = cluster
        self.slot = slot
        self._command = command
        self._answer = answer
        self._redirections = 0

    def send(self, node: RedisClient, *, asking: bool = False) -> None:
        """Raises `RedisUnavailable` at once, if the node's breaker is open."""
        try:
            if asking:
                node.submit("ASKING")  # leaves right before the command
            node.submit(*self._command).add_done_callback(self._answered)
        except RedisUnavailable:
            self._cluster.look_again()
            raise

    def fail(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # seen, as far as asyncio is concerned: nobody has to wait for it

    def _answered(self, answered: asyncio.Future[Any]) -> None:
        if self._answer.done() or answered.cancelled():
            self._answer.cancel()
        elif (error := answered.exception()) is None:
            self._answer.set_result(answered.result())
        elif isinstance(error, AskError) and self._redirections < MAX_REDIRECTIONS:
            self._redirect(error)
        else:
            if not isinstance(error, RedisError) or isinstance(error, RedisUnavailable):
                self._cluster.look_again()
            self.fail(error if isinstance(error, Exception) else RedisUnavailable("connection", repr(error)))

    def _redirect(self, error: AskError) -> None:
        """`MovedError` is an `AskError` that holds from now on."""
        self._redirections += 1
        moved = isinstance(error, MovedError)
        address = f"{error.host}:{error.port}"
        if moved:
            self._cluster.moved(self.slot, address)
        try:
            self.send(self._cluster.node(address), asking=not moved)
        except RedisUnavailable as unavailable:
            self.fail(unavailable)


def slot_of(command: str, arguments: Sequence[Argument]) -> int:
    """The slot of the command's first key: the others have to lie in the same one, or the node refuses it."""
    if command in WITHOUT_KEY:
        return 0
    key = arguments[KEY_POSITIONS.get(command, 0)]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())
