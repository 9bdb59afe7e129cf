"""`python -m app.audit_verify`: is the audit log complete, unchanged and in order? Ends with 1 if it is not.

`--anchor NUMBER:SIGNATURE` names a checkpoint from the service's log: what was cut off after it is found as well.
"""

import argparse
import asyncio

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.platform.audit.checkpoints import anchor_of
from app.platform.audit.verification import Report, verify
from app.resources import audit_keys
from app.settings import Settings


async def verified(settings: Settings, anchor: tuple[int, bytes] | None = None) -> Report:
    """Reads all of it from the primary."""
    url = settings.database_url.get_secret_value()
    engine = create_async_engine(url, poolclass=NullPool, connect_args={"target_session_attrs": "primary"})
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            return await verify(connection, audit_keys(settings), anchor)
    finally:
        await engine.dispose()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.audit_verify", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--anchor", type=anchor_of, help="a checkpoint that was kept elsewhere, NUMBER:SIGNATURE")
    report = asyncio.run(verified(Settings(), parser.parse_args().anchor))
    for finding in report.findings:
        print(finding)
    checked = f"{report.entries} entries in {report.chains} chains, {report.checkpoints} checkpoints"
    print(f"{checked}: {report.found} faults" if report.found else f"{checked}: complete, unchanged and in order")
    return 1 if report.found else 0


if __name__ == "__main__":
    raise SystemExit(main())
