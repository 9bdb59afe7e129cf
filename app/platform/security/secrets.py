"""Secrets that change while the process runs: a ring of them in memory, and files that are looked at again."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from prometheus_client import Counter

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
MAX_BYTES = 65_536  # of a file with a secret

ROTATIONS = Counter("secret_rotations_total", "Secrets that were read anew, by result", ["result"])


class Keyring:
    """The secret that signs, and those that are accepted beside it. Its text and its `repr` hold none of them."""

    def __init__(self, current: str, accepted: Sequence[str] = ()) -> None:
        self._secrets: tuple[str, ...] = (current, *accepted)

    @classmethod
    def of(cls, secret: "str | Keyring") -> "Keyring":
        return secret if isinstance(secret, Keyring) else cls(secret)

    def follow(self, other: "Keyring") -> None:
        """What the other one holds now, from now on, wherever this ring is used."""
        self._secrets = other.secrets

    @property
    def secrets(self) -> tuple[str, ...]:
        """The one that signs comes first."""
        return self._secrets

    def derived(self, derive: Callable[[str], bytes]) -> "DerivedKeys":
        return DerivedKeys(self, derive)


class DerivedKeys:
    """What one purpose makes of each secret of a ring, made again when the ring has changed."""

    def __init__(self, ring: Keyring, derive: Callable[[str], bytes]) -> None:
        self._ring = ring
        self._derive = derive
        self._secrets: tuple[str, ...] = ()
        self._keys: tuple[bytes, ...] = ()

    @property
    def all(self) -> tuple[bytes, ...]:
        if self._secrets is not self._ring.secrets:
            self._keys = tuple(map(self._derive, self._ring.secrets))
            self._secrets = self._ring.secrets
        return self._keys

    @property
    def first(self) -> bytes:
        return self.all[0]


class UnreadableSecret(ValueError):
    """The file can't be read, or is no text, or too large. The message names it and holds nothing of it."""


def read_secret(path: Path) -> str:
    """Without the line break at its end. Raises `UnreadableSecret`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableSecret(f"{path} can't be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UnreadableSecret(f"{path} is larger than {MAX_BYTES} bytes")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UnreadableSecret(f"{path} is not UTF-8") from None


class SecretFiles:
    """Looks at the files again and again, and hands over all of them when one has changed.

    By their content: a secret manager exchanges a link above them, which no time of a file need tell. `find` names the
    files each time, since one may be added; one that was there and is gone changes nothing. `rotated` raises
    `ValueError` for what can't be used; then everything stays as it is until they change again.
    """

    def __init__(
        self,
        find: Callable[[], Mapping[str, Path]],
        rotated: Callable[[Mapping[str, str]], None],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._find = find
        self._files: dict[str, Path] = {}
        self._rotated = rotated
        self._look_seconds = look_seconds
        self._seen: bytes | None = None

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._look_seconds)

    async def look(self) -> None:
        try:
            found = await asyncio.to_thread(self._read)
        except UnreadableSecret as error:
            logger.warning("secrets stay as they are: %s", error)
            return
        seen = sha256(repr(sorted(found.items())).encode()).digest()
        first, changed = self._seen is None, seen != self._seen
        self._seen = seen
        if not changed or not found:
            return
        try:
            self._rotated(found)
        except ValueError:
            # The text of the error may hold what was read.
            logger.error("secrets stay as they are: what the files hold now can't be used")
            ROTATIONS.labels("refused").inc()
            return
        if not first:  # else they are those of the start, unless they changed in between
            logger.info("secrets were read anew")
            ROTATIONS.labels("done").inc()

    def _read(self) -> dict[str, str]:
        self._files |= self._find()
        return {name: read_secret(path) for name, path in self._files.items()}
