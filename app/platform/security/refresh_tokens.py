"""Refresh tokens: opaque, kept as hashes, each derived from the one before.

A token is its session's id, a secret, and a tag that says it is one of ours. The first secret is random; the next is
a MAC over the last one and over the session's salt, under a key that the database does not hold. So the successor of a
token can be given again to a client that lost the answer, though nobody keeps it; and who has the database, or an old
token and the key, still can't make one.

The tag tells a token of an older generation, whose hash is forgotten, from one that was made up: only the former is a
reason to end the session.

A rotation ends no session: which token is the next one is known by its hash, whatever key it was derived with. The keys
of before are for what was derived or tagged with them: a lost answer's successor, and the reuse of an old token.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from app.platform.security.secrets import DerivedKeys, Keyring

PREFIX = "hrr_"  # what a scanner for leaked secrets can look for
SECRET_BYTES, TAG_BYTES = 32, 16
MAX_CHARACTERS = 128


class RefreshToken(NamedTuple):
    session_id: UUID
    secret: bytes
    tag: bytes
    genuine: bool  # by its tag: this service made it, with a key of the ring

    @property
    def digest(self) -> bytes:
        """What is kept of it. The secret has 256 bits: nobody guesses it, and no salt or slow hash is needed."""
        return hashlib.sha256(self.session_id.bytes + self.secret).digest()

    @property
    def text(self) -> str:
        """The same for the same token, whichever instance gives it while a key is rotated."""
        return PREFIX + base64.urlsafe_b64encode(self.session_id.bytes + self.secret + self.tag).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class RefreshTokens:
    _keys: DerivedKeys = field(repr=False)

    @classmethod
    def keyed_by(cls, secret: str | Keyring) -> "RefreshTokens":
        return cls(Keyring.of(secret).derived(_key))

    def first(self, session_id: UUID) -> RefreshToken:
        return _made(session_id, secrets.token_bytes(SECRET_BYTES), self._keys.first)

    def successor(self, token: RefreshToken, salt: bytes) -> RefreshToken:
        return self.successors(token, salt)[0]

    def successors(self, token: RefreshToken, salt: bytes) -> list[RefreshToken]:
        """One by each key of the ring: that by the present one, then those that another instance, or this one before a
        rotation, may have given.
        """
        parts = token.session_id.bytes, salt, token.secret
        return [_made(token.session_id, _mac(key, b"next", *parts), key) for key in self._keys.all]

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
        genuine = any(hmac.compare_digest(tag, _tag(key, session_id, secret)) for key in self._keys.all)
        return RefreshToken(session_id, secret, tag, genuine)


def _key(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), person=b"refresh-tokens").digest()


def _made(session_id: UUID, secret: bytes, key: bytes) -> RefreshToken:
    return RefreshToken(session_id, secret, _tag(key, session_id, secret), genuine=True)


def _tag(key: bytes, session_id: UUID, secret: bytes) -> bytes:
    return _mac(key, b"tag", session_id.bytes, secret)[:TAG_BYTES]


def _mac(key: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """The parts have lengths of their own, and the purposes differ: no two inputs read the same."""
    return hmac.digest(key, b"\0".join((purpose, b"".join(parts))), "sha256")
