"""`python -m app.tiers ORGANIZATION TIER`: gives an organization the rate limits of a tier of RATE_LIMIT_TIERS.

For operators: no tenant can. It holds for an API key within 5 s, and for a person from their next access token on, so
within ACCESS_TOKEN_SECONDS.
"""

import argparse
import asyncio
from dataclasses import replace
from uuid import UUID

from app.features.organizations import service
from app.platform.audit import AuditTrail
from app.platform.errors import NotFound
from app.platform.postgres import Database
from app.resources import audit_keys, database_options
from app.settings import Settings


async def set_tier(settings: Settings, organization_id: UUID, tier: str) -> None:
    """With an entry in the organization's audit log. Raises `NotFound`, or what the database raises."""
    options = replace(database_options(settings), pool_size=1, pool_overflow=0, replica_urls=())
    trail = AuditTrail(audit_keys(settings), enabled=settings.audit_enabled)
    database = Database(options, before_commit=(trail,))
    await database.start()
    try:
        async with database.write() as session:
            await service.set_tier(session, organization_id, tier)
    finally:
        await database.aclose()


def main() -> int:
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m app.tiers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("organization", type=UUID, help="its id")
    parser.add_argument("tier", choices=sorted(settings.rate_limit_tiers))
    arguments = parser.parse_args()
    try:
        asyncio.run(set_tier(settings, arguments.organization, arguments.tier))
    except NotFound as error:
        parser.error(str(error))
    print(f"{arguments.organization} is {arguments.tier} now")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
