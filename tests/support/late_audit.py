"""The application with a fault: the audit log is written after the COMMIT, in a transaction of its own."""

from sqlalchemy import select

from app.main import app
from app.platform.audit import trail
from app.platform.postgres import WriteSession

__all__ = ["app"]

commit = WriteSession.commit


async def commit_first(self: WriteSession) -> None:
    acts = self.info.pop(trail.PENDING, ())
    await commit(self)
    if acts:
        [write] = [finish for finish in self.before_commit if isinstance(finish, trail.AuditTrail)]
        async with self.bind.connect() as connection:  # type: ignore[union-attr]
            for act in acts:
                await connection.execute(select(trail.APPEND), write._row(act))
            await connection.commit()


WriteSession.commit = commit_first  # type: ignore[method-assign]
