"""A finished answer, and its form in Redis."""

import struct
from dataclasses import dataclass
from typing import NamedTuple

FORM = 2  # another form is a miss, so that two releases can run side by side
HEAD = struct.Struct(
    ">BddQHHH"
)  # form, time stored, its end, WAL position, length of the fence, status, number of headers
PAIR = struct.Struct(">HH")  # lengths of a header's name and value

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Headers
    body: bytes

    @property
    def cacheable(self) -> bool:
        """A 200 that is not meant for one client alone (RFC 9111, 3 and 7.3)."""
        return self.status == 200 and not any(
            name == b"set-cookie" or (name == b"cache-control" and b"no-store" in value) for name, value in self.headers
        )


class Entry(NamedTuple):
    """`fence`: the generations of the answer's tags, read before the answer was made.

    `wal_position`: the answer has every write up to there.
    """

    fence: bytes
    stored_at: float  # Unix time
    ends_at: float
    wal_position: int
    answer: Answer


def encode(entry: Entry) -> bytes:
    """Raises struct.error for what does not fit: a header over 64 KiB, say."""
    answer = entry.answer
    head = (entry.stored_at, entry.ends_at, entry.wal_position, len(entry.fence), answer.status, len(answer.headers))
    parts = [HEAD.pack(FORM, *head), entry.fence]
    for name, value in answer.headers:
        parts += (PAIR.pack(len(name), len(value)), name, value)
    return b"".join((*parts, answer.body))


def decode(data: bytes) -> Entry | None:
    """None for what is not of this form."""
    try:
        form, stored_at, ends_at, wal_position, fence_length, status, header_count = HEAD.unpack_from(data)
        if form != FORM:
            return None
        end = HEAD.size + fence_length
        fence = data[HEAD.size : end]
        headers = []
        for _ in range(header_count):
            name_length, value_length = PAIR.unpack_from(data, end)
            middle = end + PAIR.size + name_length
            headers.append((data[end + PAIR.size : middle], data[middle : middle + value_length]))
            end = middle + value_length
    except struct.error:
        return None
    return Entry(fence, stored_at, ends_at, wal_position, Answer(status, tuple(headers), data[end:]))
