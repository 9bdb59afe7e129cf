"""GCRA, the generic cell rate algorithm (ITU-T I.371, annex A), as B. Leach used it for rate limits ("Rate limiting,
cells, and GCRA", 2015, and redis-cell).

Of each limit one number is kept: the theoretical arrival time (TAT), at which the bucket would be full again. A request
moves it on by the limit's interval, and is refused if it would then lie further ahead than the tolerance. So in any
time t at most burst + rate * t requests pass, and there is no window at whose edge twice as many could.

All arithmetic is in integer microseconds, which a double holds exactly until the year 2255.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic_ns
from typing import NamedTuple

from app.platform.limits.rules import LimitRule
from app.platform.redis import Script

MAX_LOCAL_BUCKETS = 10_000


class Charge(NamedTuple):
    """`wait_us`: until the request would pass, 0 if it has. `owed_us`: until each limit's bucket is full again.
    `held`: permits that were charged in advance and are left.
    """

    wait_us: int
    owed_us: tuple[int, ...]
    held: int = 0


LEASED_PART = 100  # of what is left of a limit: one lease takes 1 / LEASED_PART at most

# KEYS: one per limit, in one slot. ARGV: permits wanted, how many of them at once, microseconds of the lease for the
# others, then each limit's interval and tolerance. Returns the permits granted, the wait if those at once are not among
# them, then what is owed to each limit.
# Leased permits are charged as if they came at the lease's end. There is no lease where little is left.
# A TAT is never believed to be further ahead than the tolerance: after a clock that ran ahead, nobody is locked out.
CHARGE = Script(f"""
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local stored = redis.call('MGET', unpack(KEYS))
local granted, at_once, lease, wait, tats = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), 0, {{}}
for i = 1, #KEYS do
  local interval, tolerance = tonumber(ARGV[2 * i + 2]), tonumber(ARGV[2 * i + 3])
  tats[i] = math.min(math.max(tonumber(stored[i] or now), now), now + tolerance)
  wait = math.max(wait, tats[i] + at_once * interval - tolerance - now)
  local left = math.floor((now + tolerance - math.max(tats[i], now + lease)) / interval)
  granted = math.min(granted, math.floor(left / {LEASED_PART}))
end
if granted <= at_once then granted, lease = at_once, 0 end
if wait > 0 then granted = 0 end
local reply = {{granted, wait}}
for i, key in ipairs(KEYS) do
  if granted > 0 then
    tats[i] = math.max(tats[i], now + lease) + granted * tonumber(ARGV[2 * i + 2])
    redis.call('SET', key, string.format('%.0f', tats[i]), 'PX', math.ceil((tats[i] - now) / 1000))
  end
  reply[i + 2] = tats[i] - now
end
return reply
""")


class LocalBuckets:
    """The same for one process, on its own clock: what holds while Redis is away.

    Holds `MAX_LOCAL_BUCKETS`, the least recently used are forgotten first: then a caller finds a full bucket again.
    """

    def __init__(self, clock: Callable[[], int] = lambda: monotonic_ns() // 1_000) -> None:
        self._clock = clock
        self._tats: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def charge(self, key: str, rule: LimitRule) -> Charge:
        now = self._clock()
        stored = self._tats.pop(key, None) or (now,) * len(rule.limits)
        tats = tuple(max(tat, now) for tat in stored)
        charged = tuple(tat + rule.cost * limit.interval_us for tat, limit in zip(tats, rule.limits, strict=True))
        wait = max(0, *(tat - limit.tolerance_us - now for tat, limit in zip(charged, rule.limits, strict=True)))
        if wait == 0:
            tats = charged
        self._tats[key] = tats
        if len(self._tats) > MAX_LOCAL_BUCKETS:
            self._tats.popitem(last=False)
        return Charge(wait, tuple(tat - now for tat in tats))
