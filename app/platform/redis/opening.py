"""The client that a URL asks for."""

from collections.abc import Callable

from app.platform.redis.client import RedisClient
from app.platform.redis.cluster import RedisCluster
from app.platform.redis.urls import RedisUrl, connect_by
from app.platform.resilience.breaker import CircuitBreaker


def redis_from_url(url: str, *, timeout_seconds: float, new_breaker: Callable[[str], CircuitBreaker]) -> RedisClient:
    """`new_breaker` is called with the dependency's name: each node of a cluster has a breaker of its own.

    Raises ValueError for what is no URL of Redis.
    """
    if RedisUrl.parse(url).kind == "cluster":
        return RedisCluster(url, timeout_seconds=timeout_seconds, new_breaker=new_breaker)
    connect = connect_by(url, timeout_seconds)
    return RedisClient(connect, timeout_seconds=timeout_seconds, breaker=new_breaker("redis"))
