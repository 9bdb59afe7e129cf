"""The memory tier: finished answers of this process, up to a number of bytes, the least recently used going first.

It serves while it holds a lease, that is while it is sure to have heard of every invalidation (see `coherence`). An
answer may come in only if none of its tags was invalidated since before it was looked for: what was on its way from
Redis or from a database meanwhile may be of before that write.
"""

import time
from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Any
from weakref import WeakValueDictionary

from prometheus_client import Counter, Gauge

from app.platform.cache.answer import Answer, Entry
from app.platform.cache.refresh import head_start

ENTRY_BYTES = 1_500  # of an entry beside its answer: objects, keys, places in tables
HEADER_BYTES = 150
SHORTCUT_BYTES = 4_000
MAX_SHORTCUTS = 1_000  # to one entry

MEMORY_BYTES = Gauge("cache_memory_bytes", "Answers in memory, with their overhead", multiprocess_mode="livesum")
EVICTIONS = Counter("cache_memory_evictions_total", "Answers that left memory for want of room")


class Tag:
    """Lives as long as an entry or a fill depends on it: so there are never more than those have."""

    __slots__ = ("__weakref__", "keys", "version")

    def __init__(self) -> None:
        self.version = 0
        self.keys: set[str] = set()


class Watch:
    """Tags as they were before an answer was looked for."""

    __slots__ = ("_versions", "tags")

    def __init__(self, tags: tuple[Tag, ...]) -> None:
        self.tags = tags
        self._versions = [tag.version for tag in tags]

    @property
    def is_undisturbed(self) -> bool:
        return self._versions == [tag.version for tag in self.tags]


class Kept:
    """An answer in memory. `stored_at` is Unix time; the other times are of the monotonic clock, in seconds.

    `due_at`: when it is time to make it anew, though it may be served until `ends_at`.
    """

    __slots__ = (
        "answer", "due_at", "ends_at", "fresh_until", "is_void", "key", "shortcuts", "size", "stored_at", "tags",
        "wal_position",
    )  # fmt: skip

    def __init__(self, key: str, entry: Entry, tags: tuple[Tag, ...]) -> None:
        self.key = key
        self.tags = tags
        self.answer: Answer = entry.answer
        self.stored_at = entry.stored_at
        self.wal_position = entry.wal_position
        # By another machine's clock, perhaps: however that is set, no longer than its time to live.
        lifetime = min(entry.fresh_until - time.time(), entry.fresh_until - entry.stored_at)
        self.fresh_until = time.monotonic() + lifetime
        self.due_at = self.fresh_until - head_start(entry.seconds_to_make)
        self.ends_at = self.fresh_until + entry.ends_at - entry.fresh_until
        self.is_void = False
        self.shortcuts: set[Hashable] = set()
        headers = sum(HEADER_BYTES + len(name) + len(value) for name, value in entry.answer.headers)
        self.size = ENTRY_BYTES + headers + len(entry.answer.body)


class MemoryTier:
    """`lease_until`: when its lease ends, by the monotonic clock; whoever keeps it coherent moves that on."""

    def __init__(self, max_bytes: int) -> None:
        self.lease_until = 0.0
        self.bytes = 0
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Kept] = OrderedDict()
        self._tags: WeakValueDictionary[str, Tag] = WeakValueDictionary()
        # What others remember of an entry, under a key of their own: gone when the entry is.
        self.shortcuts: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Kept | None:
        kept = self._entries.get(key)
        return kept if kept is not None and self.may_serve(kept, time.monotonic()) else None

    def may_serve(self, kept: Kept, now: float) -> bool:
        """At this moment of the monotonic clock."""
        if kept.is_void or now >= self.lease_until:
            return False
        if now >= kept.ends_at:
            self._drop(kept)
            return False
        self._entries.move_to_end(kept.key)
        return True

    def watch(self, tags: Collection[str]) -> Watch:
        """To be taken before an answer with these tags is looked for."""
        return Watch(tuple(self._tags.setdefault(tag, Tag()) for tag in tags))

    def put(self, key: str, entry: Entry, watch: Watch) -> None:
        """Keep it, unless one of its tags was invalidated meanwhile."""
        kept = Kept(key, entry, watch.tags)
        if kept.size > self._max_bytes or not watch.is_undisturbed:
            return
        if (old := self._entries.get(key)) is not None:
            self._drop(old)
        self._entries[key] = kept
        for tag in kept.tags:
            tag.keys.add(key)
        self._grow(kept.size)
        self._evict()

    def attach(self, kept: Kept, key: Hashable, shortcut: Any) -> None:
        """In place of an earlier one under the same key."""
        if kept.is_void or (len(kept.shortcuts) >= MAX_SHORTCUTS and key not in kept.shortcuts):
            return
        self.shortcuts[key] = shortcut
        if key in kept.shortcuts:
            return
        kept.shortcuts.add(key)
        kept.size += SHORTCUT_BYTES
        self._grow(SHORTCUT_BYTES)
        self._evict()

    def invalidate(self, tags: Collection[str]) -> None:
        for name in tags:
            if (tag := self._tags.get(name)) is not None:
                tag.version += 1
                self._drop_all(tag)

    def clear(self) -> None:
        """Nothing stays, and nothing that is on its way comes in."""
        self.invalidate(list(self._tags))
        for kept in list(self._entries.values()):  # those without tags
            self._drop(kept)

    def _evict(self) -> None:
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries.values())))
            EVICTIONS.inc()

    def _drop_all(self, tag: Tag) -> None:
        for key in list(tag.keys):
            self._drop(self._entries[key])

    def _drop(self, kept: Kept) -> None:
        kept.is_void = True
        del self._entries[kept.key]
        for tag in kept.tags:
            tag.keys.discard(kept.key)
        for key in kept.shortcuts:
            self.shortcuts.pop(key, None)
        self._grow(-kept.size)

    def _grow(self, size: int) -> None:
        self.bytes += size
        MEMORY_BYTES.set(self.bytes)
