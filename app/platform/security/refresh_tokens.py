"""Refresh tokens: opaque, kept as hashes, each derived from the one before.

A token is its session's id, a secret, and a tag that says it is one of ours. The first secret is random; the next is
a MAC over the last one and over the session's salt, under a key that the database does not hold. So the successor of a
token can be given again to a client that lost the answer, though nobody keeps it; and who has the database, or an old
token and the key, still can't make one.

The tag tells a token of an older generation, whose hash is forgotten, from one that was made up: only the former is a
reason to end the session.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

PREFIX = "hrr_"  # what a scanner for leaked secrets can look for
SECRET_BYTES, TAG_BYTES = 32, 16
MAX_CHARACTERS = 128


class RefreshToken(NamedTuple):
    session_id: UUID
    secret: bytes
    genuine: bool  # by its tag: this service made it, with the present key

    @property
    def digest(self) -> bytes:
        """What is kept of it. The secret has 256 bits: nobody guesses it, and no salt or slow hash is needed."""
        return hashlib.sha256(self.session_id.bytes + self.secret).digest()


@dataclass(frozen=True, slots=True)
class RefreshTokens:
    key: bytes = field(repr=False)

    @classmethod
    def keyed_by(cls, secret: str) -> "RefreshTokens":
        return cls(hashlib.blake2b(secret.encode(), person=b"refresh-tokens").digest())

    def first(self, session_id: UUID) -> RefreshToken:
        return RefreshToken(session_id, secrets.token_bytes(SECRET_BYTES), genuine=True)

    def successor(self, token: RefreshToken, salt: bytes) -> RefreshToken:
        derived = self._mac(b"next", token.session_id.bytes, salt, token.secret)
        return RefreshToken(token.session_id, derived, genuine=True)

    def text(self, token: RefreshToken) -> str:
        whole = token.session_id.bytes + token.secret + self._tag(token.session_id, token.secret)
        return PREFIX + base64.urlsafe_b64encode(whole).rstrip(b"=").decode()

    def parse(self, text: str) -> RefreshToken | None:
        """None for what can't be one."""
        if not text.startswith(PREFIX) or len(text) > MAX_CHARACTERS:
            return None
        try:
            whole = base64.urlsafe_b64decode(text.removeprefix(PREFIX) + "==")
        except (binascii.Error, ValueError):
            return None
        if len(whole) != 16 + SECRET_BYTES + TAG_BYTES:
            return None
        session_id, secret, tag = UUID(bytes=whole[:16]), whole[16:-TAG_BYTES], whole[-TAG_BYTES:]
        return RefreshToken(session_id, secret, hmac.compare_digest(tag, self._tag(session_id, secret)))

    def _tag(self, session_id: UUID, secret: bytes) -> bytes:
        return self._mac(b"tag", session_id.bytes, secret)[:TAG_BYTES]

    def _mac(self, purpose: bytes, *parts: bytes) -> bytes:
        """The parts have lengths of their own, and the purposes differ: no two inputs read the same."""
        return hmac.digest(self.key, b"\0".join((purpose, b"".join(parts))), "sha256")
