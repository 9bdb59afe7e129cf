"""API keys: long-lived credentials of programs, that speak for the person who made them, with scopes of their own.

`headroom_`, 256 random bits, and a checksum: a scanner for leaked secrets finds them by a pattern, and tells them from
what only looks like one, without asking anybody (as GitHub's tokens are made). The database has their SHA-256, which is
enough for what can't be guessed. A key is looked up on the primary and remembered for a moment; a revocation is heard
of as that of a token is (`revocation.py`).
"""

import asyncio
import re
import secrets
import string
import time
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from uuid import UUID

from prometheus_client import Counter

from app.platform.cache.single_flight import SingleFlight
from app.platform.postgres.noted import Noted
from app.platform.security.caller import Caller
from app.platform.security.tokens import ExpiredToken, InvalidToken

PREFIX = "headroom_"
PATTERN = re.compile(r"headroom_[0-9A-Za-z]{49}", re.ASCII)
SECRET_BYTES = 32
SECRET_CHARACTERS = 43  # 256 bits in base 62
CHECKSUM_CHARACTERS = 6  # 32 bits
SHOWN_CHARACTERS = len(PREFIX) + 6  # of a key in lists
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase

REMEMBER_SECONDS = 5.0  # how late a new expiry may be heard of; a revocation is heard of within a second
MOST_REMEMBERED = 4_096
MOST_LOOKUPS = 4  # at once, per process: whoever sends keys at random gets no more of the database
USED_SECONDS, MOST_USED = 15.0, 10_000  # of which the use is written down each time; others the next time

LOOKUPS = Counter("api_key_lookups_total", "API keys that were looked up in the database, by result", ["result"])


@dataclass(frozen=True, slots=True)
class FoundKey:
    caller: Caller
    expires_at: float  # of `time.time()`


Find = Callable[[bytes], Awaitable[FoundKey | None]]
NoteUse = Callable[[Collection[tuple[UUID, UUID]]], Awaitable[None]]  # each with its organization


def new_key() -> str:
    secret = _base62(int.from_bytes(secrets.token_bytes(SECRET_BYTES)), SECRET_CHARACTERS)
    return PREFIX + secret + checksum(secret)


def checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), CHECKSUM_CHARACTERS)


def is_well_formed(token: str) -> bool:
    """Whether it is a key, as far as can be told without a database."""
    if PATTERN.fullmatch(token) is None:
        return False
    secret = token[len(PREFIX) : -CHECKSUM_CHARACTERS]
    return checksum(secret) == token[-CHECKSUM_CHARACTERS:]


def digest_of(key: str) -> bytes:
    return sha256(key.encode()).digest()


def shown_part(key: str) -> str:
    return key[:SHOWN_CHARACTERS]


def _base62(number: int, characters: int) -> str:
    found = []
    for _ in range(characters):
        number, digit = divmod(number, len(DIGITS))
        found.append(DIGITS[digit])
    return "".join(reversed(found))


@dataclass(slots=True)
class _Remembered:
    found: FoundKey | None  # None: there is no such key
    until: float  # of `time.monotonic()`


class ApiKeys:
    """`find` knows a key by its digest; `note_use` writes down which keys were used, now and then."""

    def __init__(self, find: Find, note_use: NoteUse, *, remember_seconds: float = REMEMBER_SECONDS) -> None:
        self._find = find
        self._remember_seconds = remember_seconds
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._flights = SingleFlight[FoundKey | None]()
        self._lookups = asyncio.Semaphore(MOST_LOOKUPS)
        self.uses = Noted(note_use, "uses of API keys", seconds=USED_SECONDS, most=MOST_USED)

    def known(self, token: str) -> Caller | None:
        """Whose it is, where that is known without asking."""
        remembered = self._remembered.get(digest_of(token))
        if remembered is None or remembered.found is None or remembered.until <= time.monotonic():
            return None
        return self._in_use(remembered.found) if remembered.found.expires_at > time.time() else None

    async def verify(self, token: str) -> Caller:
        """Raises `InvalidToken`, or what the database raises."""
        if not is_well_formed(token):
            raise InvalidToken("The API key is not valid.")
        digest = digest_of(token)
        remembered = self._remembered.get(digest)
        if remembered is None or remembered.until <= time.monotonic():
            found = await self._flights.run(digest, partial(self._look_up, digest))
        else:
            found = remembered.found
        if found is None:
            raise InvalidToken("The API key is not valid.")
        if found.expires_at <= time.time():
            raise ExpiredToken
        return self._in_use(found)

    def forget(self, token: str) -> None:
        self._remembered.pop(digest_of(token), None)

    async def _look_up(self, digest: bytes) -> FoundKey | None:
        async with self._lookups:
            found = await self._find(digest)
        LOOKUPS.labels("unknown" if found is None else "found").inc()
        before = self._remembered.pop(digest, None)
        if before is not None and before.found == found:
            found = before.found  # the same object: what refers to it stays good
        self._remembered[digest] = _Remembered(found, time.monotonic() + self._remember_seconds)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return found

    def _in_use(self, found: FoundKey) -> Caller:
        if found.caller.api_key_id is not None:
            self.uses.note((found.caller.organization_id, found.caller.api_key_id))
        return found.caller
