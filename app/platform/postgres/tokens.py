"""Consistency tokens: a WAL position that a caller has written, signed, so that its reads never go behind it.

Signed since a made-up position would send every read to the primary. A token tells nothing secret and grants nothing.
"""

import base64
import binascii
import hashlib
import hmac
import struct
import time

from app.platform.security.secrets import Keyring

LAYOUT = struct.Struct(">QI")  # position (timeline and LSN), expiry in seconds since 1970
SIGNATURE_BYTES = 16
TOKEN_CHARACTERS = 38  # 28 bytes in base64 without its padding
PADDING = "=="


class ConsistencyTokens:
    """After `lifetime_seconds` a token is as none: by then replicas that get reads have long caught up."""

    def __init__(self, secret: str | Keyring, lifetime_seconds: float = 300.0) -> None:
        self._keys = Keyring.of(secret).derived(token_key)
        self._lifetime = lifetime_seconds

    def sign(self, position: int) -> str:
        payload = LAYOUT.pack(position, int(time.time() + self._lifetime))
        return base64.urlsafe_b64encode(payload + signature(payload, self._keys.first)).rstrip(b"=").decode()

    def verify(self, token: str) -> int | None:
        """The position, or None for a token that is forged, expired or no token at all."""
        if len(token) != TOKEN_CHARACTERS:
            return None
        try:
            signed = base64.b64decode(token + PADDING, altchars="-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        payload, found = signed[: LAYOUT.size], signed[LAYOUT.size :]
        if not any(hmac.compare_digest(found, signature(payload, key)) for key in self._keys.all):
            return None
        position, expiry = LAYOUT.unpack(payload)
        return int(position) if expiry > time.time() else None


def token_key(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"headroom consistency token", hashlib.sha256)


def signature(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, payload, hashlib.sha256)[:SIGNATURE_BYTES]
