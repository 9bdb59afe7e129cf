"""Which passwords are refused: those that are known from breaches, and those that an attacker tries first for a person.

Breached ones are looked up in a file of sorted SHA-1 hashes, in capital hexadecimal digits, one in a line (what follows
a colon is let be): the format in which Have I Been Pwned gives its list away. The file may be as large as that one;
a look-up reads some thirty lines of it. Nothing is asked of anybody over the network.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread

SHIPPED = Path(__file__).with_name("breached_passwords.txt")
MAX_LINE_BYTES = 128
MIN_PART_CHARACTERS = 4  # of a name or an address, for its part in a password to count


class BreachedPasswords:
    def __init__(self, files: Iterable[Path]) -> None:
        """Raises OSError where one can't be read."""
        self._files = tuple(files)
        for file in self._files:
            file.open("rb").close()

    async def include(self, password: str) -> bool:
        return await anyio.to_thread.run_sync(self._include, password)

    def _include(self, password: str) -> bool:
        spellings = {password, password.lower()}
        hashes = [hashlib.sha1(each.encode(), usedforsecurity=False).hexdigest().upper() for each in spellings]
        return any(_has(file, each.encode()) for file in self._files for each in hashes)


class PasswordPolicy:
    """Length is the schemas'. There are no rules of composition: NIST SP 800-63B, 5.1.1.2, advises against them."""

    def __init__(self, breached: BreachedPasswords) -> None:
        self._breached = breached

    async def weakness(self, password: str, *about: str) -> str | None:
        """Why it is refused, in words for the person; `about`: their address, name and so on."""
        password = unicodedata.normalize("NFKC", password)
        if len(set(password.lower())) < 4:
            return "has too few different characters"
        if any(_mostly(password, text) for text in about):
            return "is made of your name or address"
        if await self._breached.include(password):
            return "is known from a breach of another service"
        return None


def _mostly(password: str, text: str) -> bool:
    """Whether little is left of the password without the parts of the text."""
    rest = password.lower()
    for part in "".join(c if c.isalnum() else " " for c in text.lower()).split():
        if len(part) >= MIN_PART_CHARACTERS:
            rest = rest.replace(part, "")
    return len(rest) < len(password) / 2


def _has(path: Path, wanted: bytes) -> bool:
    """Binary search over the bytes of the file: the line that begins at or after a position is compared."""
    with path.open("rb") as file:
        low, high = 0, file.seek(0, os.SEEK_END)
        while low < high:
            middle = (low + high) // 2
            line = _line_from(file, middle)
            if line is None or line >= wanted:
                high = middle
            else:
                low = middle + 1
        return _line_from(file, low) == wanted


def _line_from(file: BinaryIO, position: int) -> bytes | None:
    """The hash in the first whole line that begins at or after the position; None after the last one."""
    file.seek(max(0, position - 1))
    if position:
        file.readline(MAX_LINE_BYTES)
    line = file.readline(MAX_LINE_BYTES)
    return line.split(b":")[0].strip() if line else None
