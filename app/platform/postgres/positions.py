"""WAL positions as integers of 64 bits: the timeline above, the LSN (a count of bytes) below.

53 bits of LSN are 9 PB of WAL, 11 bits of timeline 2,047 promotions. Positions sort by timeline first; of two
requirements the greater one implies the other, since what was committed on an older timeline and survived the promotion
lies before the point at which the newer one began.
"""

LSN_BITS = 53
LSN_MASK = (1 << LSN_BITS) - 1


def pack(timeline: int, lsn: int) -> int:
    return timeline << LSN_BITS | lsn


def timeline_of(position: int) -> int:
    return position >> LSN_BITS


def lsn_of(position: int) -> int:
    return position & LSN_MASK


def covers(replayed: int, required: int) -> bool:
    """Whether a server that has replayed up to `replayed` has all that was committed before `required`.

    Both parts count. A server on an older timeline may have gone another way beyond the fork, however large its LSN;
    one on a newer timeline may not have replayed as far as the fork yet.
    """
    return timeline_of(replayed) >= timeline_of(required) and lsn_of(replayed) >= lsn_of(required)
