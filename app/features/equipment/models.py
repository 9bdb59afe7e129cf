"""Equipment: the things that an organization owns and lends to its people."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Computed, ForeignKey, Index, Integer, Numeric, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres.base import Base, uuid7

# Punctuation becomes blanks, or the parser would read CAM-001 as "cam" and the number -001.
# The 'simple' configuration neither stems nor drops words: names and tags are not prose.
SEARCH_DOCUMENT = " || ".join(
    f"setweight(to_tsvector('simple', translate({columns}, '-_./', '    ')), '{weight}')"
    for columns, weight in (
        ("asset_tag || ' ' || name", "A"),
        ("category || ' ' || location", "B"),
        ("description", "C"),
    )
)


class Equipment(Base):
    __tablename__ = "equipment"
    __table_args__ = (
        CheckConstraint("status IN ('available', 'checked_out', 'maintenance', 'retired')", name="status"),
        CheckConstraint("purchase_price >= 0", name="purchase_price_positive"),
        Index("uq_equipment_asset_tag", "organization_id", "asset_tag", unique=True),
        # One for each sort key, with id as the tie-break of the keyset ...
        Index("ix_equipment_name", "organization_id", "name", "id"),
        Index("ix_equipment_created_at", "organization_id", "created_at", "id"),
        Index("ix_equipment_updated_at", "organization_id", "updated_at", "id"),
        # ... one for each filter, in the default order ...
        Index("ix_equipment_category", "organization_id", "category", "name", "id"),
        Index("ix_equipment_status", "organization_id", "status", "name", "id"),
        Index("ix_equipment_location", "organization_id", "location", "name", "id"),
        # ... and GIN for what an item has many of (btree_gin lets the organization lead).
        Index("ix_equipment_tags", "organization_id", "tags", postgresql_using="gin"),
        Index("ix_equipment_search", "organization_id", "search", postgresql_using="gin"),
    )

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    asset_tag: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    category: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default="available")
    location: Mapped[str] = mapped_column(Text, server_default="")
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    description: Mapped[str] = mapped_column(Text, server_default="")
    attributes: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    purchase_price: Mapped[Decimal | None] = mapped_column(Numeric(14, 2))
    version: Mapped[int] = mapped_column(Integer, server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    search: Mapped[str] = mapped_column(TSVECTOR, Computed(SEARCH_DOCUMENT, persisted=True))
