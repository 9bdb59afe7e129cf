"""Second factors that a key of before has sealed are sealed under the present one, so that the old one can go."""

import logging
from uuid import UUID

from prometheus_client import Counter

from app.features.identity.credential_repository import CredentialRepository
from app.platform.postgres import Database, WriteSession
from app.platform.security.sealing import Sealer, Unreadable

logger = logging.getLogger(__name__)

BATCH = 500
FIRST = UUID(int=0)

SEALED_ANEW = Counter(
    "second_factors_sealed_anew_total", "Second factors that a key of before had sealed, by result", ["result"]
)


async def seal_anew(database: Database, sealer: Sealer) -> int:
    """How many it were. Looks at all of them while there are keys of before, and at none otherwise.

    One that no key opens is left as it is, counted, and told of.
    """
    if not sealer.rotating:
        return 0
    renewed, unreadable, after = 0, 0, FIRST
    while True:
        async with database.write() as session:
            factors = await CredentialRepository(session).factors_after(after, BATCH)
            results = [await _renew(session, sealer, *factor) for factor in factors]
        renewed, unreadable = renewed + results.count("done"), unreadable + results.count("unreadable")
        if len(factors) < BATCH:
            break
        after = factors[-1][0]
    logger.info("second factors: %d sealed anew, %d that no key opens", renewed, unreadable)
    return renewed


async def _renew(session: WriteSession, sealer: Sealer, user_id: UUID, sealed: bytes) -> str:
    try:
        again = sealer.renewed(sealed, user_id.bytes)
    except Unreadable:
        result = "unreadable"
    else:
        if again is None or not await CredentialRepository(session).reseal(user_id, again, instead_of=sealed):
            return "present"
        result = "done"
    SEALED_ANEW.labels(result).inc()
    return result
