"""Secrets that have to be read again are sealed before they are kept: AES-256-GCM, under a key of the settings."""

import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


class Unreadable(Exception):
    """It was sealed under a key that is not among ours, or for something else, or was changed since."""


class Sealer:
    """Seals under the first key, and opens what was sealed under any of them: so a key is changed with an overlap."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._ciphers = [
            AESGCM(hashlib.blake2b(key.encode(), digest_size=32, person=b"sealing").digest()) for key in keys
        ]

    def seal(self, secret: bytes, purpose: bytes) -> bytes:
        """`purpose` binds it to its place: what is copied to another one can't be opened there."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, secret, purpose)

    def open(self, sealed: bytes, purpose: bytes) -> bytes:
        """Raises `Unreadable`."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose)
            except (InvalidTag, ValueError):
                continue
        raise Unreadable


def _cipher_key(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=32, person=b"sealing").digest()
