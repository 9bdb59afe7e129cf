"""Signed, opaque cursors: a position in one listing, which nobody can forge or carry to another listing.

A cursor holds the direction and the values of the sort key and of the tie-break at the edge of a page. What it is bound
to (listing, sort, scope, filters) isn't in it: it goes into the signature (HMAC-SHA256, cut to 128 bits).
"""

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel

VERSION = b"\x01"
MAC_BYTES = 16
MAX_CURSOR = 2_048  # characters

Direction = Literal["next", "prev"]

# Tag, type, to text, from text. In this order: a datetime is a date too.
CODECS: tuple[tuple[str, type[Any], Callable[[Any], str], Callable[[str], Any]], ...] = (
    ("t", datetime, datetime.isoformat, datetime.fromisoformat),
    ("d", date, date.isoformat, date.fromisoformat),
    ("u", UUID, lambda value: str(value.hex), UUID),
    ("n", Decimal, str, Decimal),
    ("i", int, str, int),
    ("f", float, repr, float),
    ("s", str, str, str),
)
DECODERS = {tag: decode for tag, _, _, decode in CODECS}


class InvalidCursor(ValueError):
    """Forged, truncated, or from another listing, organization, sort or filter: there is no telling which."""


@dataclass(frozen=True, slots=True)
class Position:
    """The edge of a page: go on in this direction, from these values on, without them."""

    direction: Direction
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class CursorSeal:
    """Makes and reads the cursors of one listing for one scope."""

    key: bytes = field(repr=False)
    binding: bytes
    accepted: tuple[bytes, ...] = field(default=(), repr=False)  # other keys, for cursors that were made with them

    @classmethod
    def bind(cls, key: bytes, *binding: Any) -> Self:
        """To these values: plain ones, UUIDs, times, pydantic models, and collections of them."""
        canonical = json.dumps(binding, sort_keys=True, default=_canonical)
        return cls(key, sha256(canonical.encode()).digest())

    def encode(self, position: Position) -> str:
        """Raises `TypeError` for a value of a type that can't be in a sort key, None included."""
        fields = [position.direction, *map(_encode_value, position.values)]
        payload = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        return urlsafe_b64encode(VERSION + self._mac(payload, self.key) + payload).rstrip(b"=").decode()

    def decode(self, cursor: str) -> Position:
        """Raises `InvalidCursor`."""
        payload = self._verified(cursor)
        direction, *values = json.loads(payload.decode("utf-8", "surrogatepass"))
        return Position(direction, tuple(DECODERS[value[0]](value[1:]) for value in values))

    def _verified(self, cursor: str) -> bytes:
        if len(cursor) > MAX_CURSOR:
            raise InvalidCursor("too long")
        try:
            sealed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except ValueError as error:
            raise InvalidCursor("not base64") from error
        mac, payload = sealed[1 : 1 + MAC_BYTES], sealed[1 + MAC_BYTES :]
        if sealed[:1] != VERSION or not any(
            hmac.compare_digest(mac, self._mac(payload, key)) for key in (self.key, *self.accepted)
        ):
            raise InvalidCursor("wrong signature")
        return payload

    def _mac(self, payload: bytes, key: bytes) -> bytes:
        return hmac.digest(key, VERSION + self.binding + payload, "sha256")[:MAC_BYTES]


def cursor_key(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"headroom: list cursors", "sha256")


def _encode_value(value: Any) -> str:
    for tag, kind, encode, _ in CODECS:
        if isinstance(value, kind):
            return tag + encode(value)
    raise TypeError(f"a sort key can't be {type(value).__name__}")


def _canonical(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value)
