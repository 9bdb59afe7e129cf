"""WAL positions as plain integers: the timeline above, the 64 bits of the LSN below.

They sort by timeline first. Of two requirements the greater one therefore implies the other: what was committed on an
older timeline and survived the promotion lies before the point at which the newer one began.
"""

LSN_BITS = 64
LSN_MASK = (1 << LSN_BITS) - 1
BEYOND = (1 << LSN_BITS + 32) - 1  # no server gets there: whoever requires it reads from the primary


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
    return replayed >> LSN_BITS >= required >> LSN_BITS and replayed & LSN_MASK >= required & LSN_MASK
