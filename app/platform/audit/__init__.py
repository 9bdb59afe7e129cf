"""Who did what to which, when, from where: written with the effect, never changed, and checkable afterwards."""

from app.platform.audit.keys import AuditKeys
from app.platform.audit.trail import Actor, AuditTrail, record

__all__ = ["Actor", "AuditKeys", "AuditTrail", "record"]
