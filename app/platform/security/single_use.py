"""Secrets that are good once: tokens for links in mails, and recovery codes for people to write down."""

import base64
import hashlib
import secrets

TOKEN_BYTES = 32
CODE_GROUPS, CODE_GROUP = 4, 4  # 16 characters of base 32: 80 bits
MAX_CHARACTERS = 64


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def new_code() -> str:
    """`abcd-efgh-2345-6789`"""
    letters = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    return "-".join(letters[at : at + CODE_GROUP] for at in range(0, CODE_GROUPS * CODE_GROUP, CODE_GROUP))


def digest(secret: str, purpose: str) -> bytes:
    """What is kept: they are random and long, so that no one finds them by trying."""
    return hashlib.blake2b(secret.encode(), digest_size=32, person=purpose.encode()[:16]).digest()


def code_digest(code: str, owner: bytes) -> bytes:
    """However it was typed: in capitals, with spaces, without the dashes."""
    plain = "".join(character for character in code.lower() if character.isalnum())
    return hashlib.blake2b(plain.encode(), digest_size=32, salt=owner[:16], person=b"recovery-code").digest()
