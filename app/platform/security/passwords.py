"""Passwords: Argon2id with OWASP's parameters, in threads, so that a login never holds up the event loop."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
import argon2
from argon2.exceptions import VerifyMismatchError

# OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane; about 20 ms.
MEMORY_KIB = 19_456
PASSES = 2
LANES = 1

T = TypeVar("T")

MAX_PASSWORD_BYTES = 1_024  # in UTF-8; Argon2 reads all of it, so an unbounded one would be a cheap attack


class PasswordTooLong(ValueError):
    """The password has more than MAX_PASSWORD_BYTES."""


class PasswordHasher:
    """At most `concurrency` hashes at a time: each takes a thread, a core, and `memory_kib` of memory.

    Waiting for a turn can be cancelled (the request's deadline bounds it); a hash that has begun runs to its end.
    """

    def __init__(self, concurrency: int, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES) -> None:
        self._argon2 = argon2.PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=LANES)
        self._limiter = anyio.CapacityLimiter(concurrency)
        self._nobodys_hash = nobodys_hash(self._argon2)

    async def hash(self, password: str) -> str:
        """The hash with its parameters and salt (PHC string). Raises PasswordTooLong."""
        prepared = _prepare(password)
        if len(prepared) > MAX_PASSWORD_BYTES:
            raise PasswordTooLong(f"a password has at most {MAX_PASSWORD_BYTES} bytes")
        return await self._in_thread(lambda: self._argon2.hash(prepared))

    async def verify(self, hashed: str, password: str) -> bool:
        prepared = _prepare(password)
        if len(prepared) > MAX_PASSWORD_BYTES:
            return False
        return await self._in_thread(lambda: self._matches(hashed, prepared))

    async def verify_absent(self, password: str) -> bool:
        """False, after the time that `verify` takes: where there is no account, so that timing does not tell."""
        return await self.verify(self._nobodys_hash, password)

    def needs_rehash(self, hashed: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._argon2.check_needs_rehash(hashed)

    def _matches(self, hashed: str, prepared: bytes) -> bool:
        try:
            return self._argon2.verify(hashed, prepared)
        except VerifyMismatchError:
            return False

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


def nobodys_hash(hasher: argon2.PasswordHasher | None = None) -> str:
    """Of a password that nobody knows, by today's parameters. Takes as long as any."""
    hasher = hasher or argon2.PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
    return hasher.hash(secrets.token_bytes(16))


def _prepare(password: str) -> bytes:
    # One spelling for what looks the same on every keyboard (NIST SP 800-63B, 5.1.1.2).
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
