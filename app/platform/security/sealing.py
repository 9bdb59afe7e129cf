"""Secrets that have to be read again are sealed before they are kept: AES-256-GCM, under a key of the settings."""

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.platform.security.secrets import Keyring

NONCE_BYTES = 12


class Unreadable(Exception):
    """It was sealed under a key that is not among ours, or for something else, or was changed since."""


class Sealer:
    """Seals under the first key, and opens what was sealed under any of them: so a key is changed with an overlap."""

    def __init__(self, key: str | Keyring) -> None:
        self._keys = Keyring.of(key).derived(_cipher_key)

    @property
    def rotating(self) -> bool:
        """There are keys of before, that something may be sealed under."""
        return len(self._keys.all) > 1

    def seal(self, secret: bytes, purpose: bytes) -> bytes:
        """`purpose` binds it to its place: what is copied to another one can't be opened there."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self._keys.first).encrypt(nonce, secret, purpose)

    def open(self, sealed: bytes, purpose: bytes) -> bytes:
        """Raises `Unreadable`."""
        return self._opened(sealed, purpose)[1]

    def renewed(self, sealed: bytes, purpose: bytes) -> bytes | None:
        """The same under the present key; None where it is under that already. Raises `Unreadable`."""
        key, secret = self._opened(sealed, purpose)
        return None if key == self._keys.first else self.seal(secret, purpose)

    def _opened(self, sealed: bytes, purpose: bytes) -> tuple[bytes, bytes]:
        """The key that opened it, and what was in it."""
        for key in self._keys.all:
            try:
                return key, AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose)
            except (InvalidTag, ValueError):
                continue
        raise Unreadable


def _cipher_key(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=32, person=b"sealing").digest()
