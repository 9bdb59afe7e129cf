"""The keys that sign access tokens, from a folder: put a new one beside the old one, and it takes over by itself.

Every process looks again and again. A new key is published (JWKS) and verifies as soon as it is seen; it signs when it
is `activation_seconds` old, by the time of its file, which is the same for all: by then every process has seen it. An
old key verifies until its file is removed, which is safe once the last token that it signed has ended.
"""

import asyncio
import logging
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.platform.security.tokens import SigningKeys, private_key_of

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
MAX_KEYS = 10
MAX_KEY_BYTES = 10_000


class NoSigningKey(Exception):
    """There is no `*.pem` with an Ed25519 private key in the folder."""


class KeyFolder:
    def __init__(self, folder: Path, *, activation_seconds: float) -> None:
        """Raises `NoSigningKey`."""
        self._folder = folder
        self._activation_seconds = activation_seconds
        self.keys = SigningKeys(*self._read())

    def look(self) -> None:
        """Take over what has changed. Where nothing can be read, all stays as it is."""
        try:
            signing, *others = self._read()
        except NoSigningKey:
            logger.error("there is no signing key any more in %s: those that were there go on", self._folder)
        else:
            self.keys.use(signing, *others)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def _read(self) -> list[Ed25519PrivateKey]:
        """The one that signs comes first: the newest of those that are old enough, or the oldest where none is."""
        found: list[tuple[float, str, Ed25519PrivateKey]] = []
        for path in sorted(self._folder.glob("*.pem"))[:MAX_KEYS]:
            try:
                with path.open("rb") as file:
                    pem = file.read(MAX_KEY_BYTES).decode()
                found.append((path.stat().st_mtime, path.name, private_key_of(pem)))
            except (OSError, ValueError) as error:
                logger.warning("%s is no signing key: %s", path.name, type(error).__name__)
        if not found:
            raise NoSigningKey(f"no Ed25519 private key in {self._folder}")
        newest_first = sorted(found, key=lambda each: each[:2], reverse=True)
        old_enough = [each for each in newest_first if time.time() - each[0] >= self._activation_seconds]
        signing = (old_enough or newest_first[::-1])[0]
        return [signing[2], *(key for *_, key in newest_first if key is not signing[2])]
