"""Access tokens: JWTs (RFC 9068), signed with Ed25519 (RFC 8037), checked as RFC 8725 asks, without a database.

The algorithm is fixed here and never taken from the token; keys are found by `kid` among the service's own, so that
`jku`, `jwk` and `x5u` in a header mean nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from time import time
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import jwt
import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.platform.security.caller import STANDARD_TIER, Caller, Role

ALGORITHM = "EdDSA"
TOKEN_TYPE = "at+jwt"
MAX_TOKEN_CHARACTERS = 4_096
CLOCK_SKEW_SECONDS = 5  # between instances, for `iat` and `nbf`; `exp` is strict
REQUIRED_CLAIMS = ("iss", "aud", "sub", "exp", "iat", "jti", "sid", "epoch", "org", "role", "scope")

# Three parts of base64url. An Ed25519 signature is 64 bytes: 86 characters, of which the last carries two bits, so that
# the signature has one spelling and not sixteen.
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]", re.ASCII)


class InvalidToken(Exception):
    """The token is not one of ours, or no longer. The message may go to the client; the cause may not."""

    def __init__(self, message: str = "The access token is not valid.") -> None:
        super().__init__(message)


class ExpiredToken(InvalidToken):
    def __init__(self) -> None:
        super().__init__("The access token has expired.")


class RevokedToken(InvalidToken):
    def __init__(self) -> None:
        super().__init__("The access token was revoked: log in again.")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class SigningKeys:
    """The key that signs, and the public keys that verify, by key id (the RFC 7638 thumbprint)."""

    def __init__(self, signing: Ed25519PrivateKey, *others: Ed25519PrivateKey) -> None:
        self.removals = 0  # counted, so that what was verified by a key that is gone can be forgotten
        self._public_keys: dict[str, Ed25519PublicKey] = {}
        self.use(signing, *others)

    def use(self, signing: Ed25519PrivateKey, *others: Ed25519PrivateKey) -> None:
        """From now on: one signs, and all of these verify."""
        public = [key.public_key() for key in (signing, *others)]
        keys = {_thumbprint(_public_jwk(key)): key for key in public}
        self.removals += bool(self._public_keys.keys() - keys.keys())
        self.private_key, self.key_id, self._public_keys = signing, next(iter(keys)), keys

    @classmethod
    def from_pem(cls, pem: str) -> SigningKeys:
        """Raises ValueError when the PEM holds no Ed25519 private key."""
        return cls(private_key_of(pem))

    @classmethod
    def derived_from(cls, secret: str) -> SigningKeys:
        """One key per secret (HKDF, RFC 5869), the same in every process: for development, where no PEM is set."""
        derivation = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"headroom access token key")
        return cls(Ed25519PrivateKey.from_private_bytes(derivation.derive(secret.encode())))

    def public_key(self, key_id: str) -> Ed25519PublicKey | None:
        return self._public_keys.get(key_id)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as a JWK set (RFC 7517)."""
        return {
            "keys": [
                {**_public_jwk(key), "kid": key_id, "alg": ALGORITHM, "use": "sig"}
                for key_id, key in self._public_keys.items()
            ]
        }


def private_key_of(pem: str) -> Ed25519PrivateKey:
    """Raises ValueError when the PEM holds no Ed25519 private key."""
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("the signing key has to be an Ed25519 private key")
    return key


def _public_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}


def _thumbprint(jwk: dict[str, str]) -> str:
    # RFC 7638: the required members alone, sorted, without whitespace.
    return _base64url(hashlib.sha256(orjson.dumps(jwk, option=orjson.OPT_SORT_KEYS)).digest())


class IssuedToken(NamedTuple):
    token: str
    expires_in: int  # seconds


class TokenIssuer:
    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str, lifetime_seconds: float) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetime = int(lifetime_seconds)

    def issue(
        self,
        *,
        user_id: UUID,
        organization_id: UUID,
        role: Role,
        scopes: Iterable[str],
        session_id: UUID,
        epoch: int,
        tier: str = STANDARD_TIER,
    ) -> IssuedToken:
        """`epoch` is the user's (see `revocation.py`)."""
        now = int(time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "client_id": self._issuer,  # required by RFC 9068; there are no third-party clients
            "org": str(organization_id),
            "role": role.value,
            "scope": " ".join(sorted(scopes)),
            "iat": now,
            "exp": now + self._lifetime,
            "jti": uuid4().hex,
            "sid": str(session_id),
            "epoch": epoch,
            "tier": tier,
        }
        headers = {"typ": TOKEN_TYPE, "kid": self._keys.key_id}
        token = jwt.encode(claims, self._keys.private_key, algorithm=ALGORITHM, headers=headers)
        return IssuedToken(token, self._lifetime)


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    expires: float


class TokenVerifier:
    """Checks tokens (about 150 µs), and remembers the last `remember` good ones (under 1 µs)."""

    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str, remember: int = 4_096) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._remember = remember
        self._verified: OrderedDict[str, _Verified] = OrderedDict()
        self._removals = keys.removals

    def verify(self, token: str) -> Caller:
        """Raises InvalidToken, whatever the token is made of."""
        if self._removals != self._keys.removals:
            self._removals = self._keys.removals
            self._verified.clear()
        known = self._verified.get(token)
        if known is None:
            known = self._verify_anew(token)
        else:
            self._verified.move_to_end(token)
        if known.expires <= time():
            self._verified.pop(token, None)
            raise ExpiredToken
        return known.caller

    def _verify_anew(self, token: str) -> _Verified:
        if len(token) > MAX_TOKEN_CHARACTERS or _SHAPE.fullmatch(token) is None:
            raise InvalidToken
        try:
            verified = _read(self._claims(token, self._key_for(token)))
        except jwt.ExpiredSignatureError as error:
            raise ExpiredToken from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise InvalidToken from error
        self._verified[token] = verified
        if len(self._verified) > self._remember:
            self._verified.popitem(last=False)
        return verified

    def _key_for(self, token: str) -> Ed25519PublicKey:
        header = jwt.get_unverified_header(token)
        if header.get("alg") != ALGORITHM or header.get("typ") != TOKEN_TYPE or "crit" in header:
            raise InvalidToken
        key_id = header.get("kid")
        key = self._keys.public_key(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise InvalidToken
        return key

    def _claims(self, token: str, key: Ed25519PublicKey) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=self._audience,
            issuer=self._issuer,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": list(REQUIRED_CLAIMS), "strict_aud": True},
        )


def _read(claims: dict[str, Any]) -> _Verified:
    user_id, organization_id, role, scope, token_id, session_id = (
        _text(claims[name]) for name in ("sub", "org", "role", "scope", "jti", "sid")
    )
    caller = Caller(
        UUID(user_id),
        UUID(organization_id),
        Role(role),
        frozenset(scope.split()),
        token_id,
        UUID(session_id),
        _epoch(claims["epoch"]),
        tier=_text(claims.get("tier", STANDARD_TIER)),  # tokens of the release before have none
    )
    return _Verified(caller, float(claims["exp"]))


def _epoch(claim: object) -> int:
    if type(claim) is not int or claim < 0:
        raise ValueError("a claim is of the wrong type")
    return claim


def _text(claim: object) -> str:
    if not isinstance(claim, str):
        raise ValueError("a claim is of the wrong type")
    return claim
