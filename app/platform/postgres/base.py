"""What every table has in common."""

from datetime import datetime
from typing import Any, ClassVar

import uuid_utils.compat
from sqlalchemy import TIMESTAMP, MetaData
from sqlalchemy.orm import DeclarativeBase

# UUIDv7 (RFC 9562): grows with time, so that new rows land on the last page of an index.
uuid7 = uuid_utils.compat.uuid7

# Names that Alembic can drop later, whichever database it runs on.
NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Base(DeclarativeBase):
    metadata = metadata
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: TIMESTAMP(timezone=True)}
