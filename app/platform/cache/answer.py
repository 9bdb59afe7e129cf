"""A finished answer, and its form in Redis."""

import struct
from dataclasses import dataclass
from typing import NamedTuple

FORM = 3  # another form is a miss, so that two releases can run side by side
# Form; times when it was stored, until when it is fresh, and may be served; seconds to make it; WAL position; length of
# the fence, status, number of headers.
HEAD = struct.Struct(">BddddQHHH")
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

    @property
    def says_nothing_is_there(self) -> bool:
        """`no-store`, which problems have, is for the client: it may be there a moment later."""
        return self.status == 404 and not any(name == b"set-cookie" for name, _ in self.headers)


class Entry(NamedTuple):
    """`fence`: the generations of the answer's tags, read before the answer was made.

    `wal_position`: the answer has every write up to there.
    """

    fence: bytes
    stored_at: float  # Unix time
    fresh_until: float
    ends_at: float
    seconds_to_make: float
    wal_position: int
    answer: Answer


def encode(entry: Entry) -> bytes:
    """Raises struct.error for what does not fit: a header over 64 KiB, say."""
    answer = entry.answer
    head = (*entry[1:6], len(entry.fence), answer.status, len(answer.headers))
    parts = [HEAD.pack(FORM, *head), entry.fence]
    for name, value in answer.headers:
        parts += (PAIR.pack(len(name), len(value)), name, value)
    return b"".join((*parts, answer.body))


def decode(data: bytes) -> Entry | None:
    """None for what is not of this form."""
    try:
        form, stored, fresh, ends, to_make, wal_position, fence_length, status, header_count = HEAD.unpack_from(data)
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
    return Entry(fence, stored, fresh, ends, to_make, wal_position, Answer(status, tuple(headers), data[end:]))
