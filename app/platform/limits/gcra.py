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


class Told(NamedTuple):
    """What Redis said: permits that are lent, microseconds until the request would pass (0 if it has), permits that are
    lent to others where it would pass but for those, and what is owed to each limit.
    """

    granted: int
    wait_us: int
    lent: int
    owed_us: tuple[int, ...]


LENT_PART = 5  # of what is free: one process is lent 1 / LENT_PART at most
RECALL = "limits:recall"  # a channel: says whose leases are to be given back

# KEYS, in one slot: a hash of leases, then one key per limit. ARGV: who holds a lease (nobody: ''), how many of its
# permits are kept, how many more are wanted, how many are charged at once, microseconds of the lease, and how many uses
# of the last one are told: for each how long ago it was and how many they were; then each limit's interval and
# tolerance.
# Uses are charged as of when they were, and a lease whose holder is silent as if all of it was used at its end. What is
# lent is free for nobody else. Where a request fails for that alone, all holders are asked to give back.
# A TAT is never believed to be further ahead than the tolerance: after a clock that ran ahead, nobody is locked out.
CHARGE = Script(f"""
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local holder, kept, extra, at_once = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lasts, told = tonumber(ARGV[5]), tonumber(ARGV[6])
local uses, lent, back, is_known = {{}}, 0, now, false
local leases = redis.call('HGETALL', KEYS[1])
for i = 1, #leases, 2 do
  local permits, ends = string.match(leases[i + 1], '(%d+) (%d+)')
  permits, ends = tonumber(permits), tonumber(ends)
  if leases[i] == holder then
    is_known = true
  elseif ends > now then
    lent, back = lent + permits, math.max(back, ends)
  else
    uses[#uses + 1] = {{ends, permits}}
    redis.call('HDEL', KEYS[1], leases[i])
  end
end
if is_known then
  for i = 1, told do uses[#uses + 1] = {{now - ARGV[5 + 2 * i], tonumber(ARGV[6 + 2 * i])}} end
end
local stored = redis.call('MGET', unpack(KEYS, 2))
local tats, intervals, free, wait, longest = {{}}, {{}}, math.huge, 0, 0
for i = 1, #stored do
  local interval, tolerance = tonumber(ARGV[5 + 2 * (told + i)]), tonumber(ARGV[6 + 2 * (told + i)])
  local tat = math.min(tonumber(stored[i] or 0), now + tolerance)
  for _, use in ipairs(uses) do tat = math.max(tat, use[1]) + use[2] * interval end
  tat = math.min(math.max(tat, now), now + tolerance)
  wait = math.max(wait, tat + at_once * interval - tolerance - now)
  free = math.min(free, math.floor((now + tolerance - tat) / interval) - lent - kept - at_once)
  tats[i], intervals[i], longest = tat, interval, math.max(longest, tolerance)
end
local short = 0
if free < 0 and at_once > 0 then
  if wait <= 0 then
    short, wait = lent, math.max(1, back - now)
    redis.call('PUBLISH', '{RECALL}', KEYS[1])
  end
  at_once = 0
end
extra = math.min(extra, math.max(0, math.floor(free / {LENT_PART})))
local reply = {{extra, wait, short}}
for i = 1, #tats do
  local tat = tats[i] + at_once * intervals[i]
  if tat > now then redis.call('SET', KEYS[i + 1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000)) end
  reply[i + 3] = tat - now + (lent + kept + extra) * intervals[i]
end
if kept + extra > 0 then
  redis.call('HSET', KEYS[1], holder, string.format('%d %.0f', kept + extra, now + lasts))
  redis.call('PEXPIRE', KEYS[1], math.ceil((lasts + longest) / 1000))
elseif is_known then
  redis.call('HDEL', KEYS[1], holder)
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
