"""Redis, for all that the service can do without.

One connection per process carries all commands: those issued in one turn of the event loop leave together, and answers
are matched in order. That costs a tenth of taking a connection from a pool for each command, and nobody waits for one.

A command waits at most the timeout in all, for the connection, in the queue and for its answer, and fails at once while
the breaker is open. The first timeout opens it, so a dead, frozen or slow Redis piles up nothing and has a request wait
once, not at each of its commands; whether it is back is asked by probes that nobody waits for. Nothing is sent twice: a
command whose answer is lost may have had its effect, and only its caller knows if that matters.

Keys that one command or script uses together share a hash tag (`cache:{tenant}:...`), so that they lie in one slot of a
Redis Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).
"""

from app.platform.redis.client import Argument, Message, RedisClient, RedisStats, Script, sortable
from app.platform.redis.link import RedisUnavailable
from app.platform.redis.opening import redis_from_url

__all__ = [
    "Argument",
    "Message",
    "RedisClient",
    "RedisStats",
    "RedisUnavailable",
    "Script",
    "redis_from_url",
    "sortable",
]
