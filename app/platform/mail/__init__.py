"""Mail behind a port: an order is written with the data, and carried out by the worker after COMMIT."""

from app.platform.mail.outbox import order_mail
from app.platform.mail.ports import Mail, MailNotSent, Postman

__all__ = ["Mail", "MailNotSent", "Postman", "order_mail"]
