import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from time import time
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from app.platform.security import tokens
from app.platform.security.caller import STANDARD_TIER, Role
from app.platform.security.tokens import (
    MAX_TOKEN_CHARACTERS,
    InvalidToken,
    IssuedToken,
    SigningKeys,
    TokenIssuer,
    TokenVerifier,
)

KEYS = SigningKeys.derived_from("a secret of the tests")
USER, ORGANIZATION, SESSION = uuid4(), uuid4(), uuid4()


def issuer(
    keys: SigningKeys = KEYS, *, name: str = "headroom", audience: str = "api", seconds: float = 60
) -> TokenIssuer:
    return TokenIssuer(keys, issuer=name, audience=audience, lifetime_seconds=seconds)


def verifier(keys: SigningKeys = KEYS, *, remember: int = 100) -> TokenVerifier:
    return TokenVerifier(keys, issuer="headroom", audience="api", remember=remember)


def issued(by: TokenIssuer, scopes: tuple[str, ...] = ("equipment:write", "equipment:read")) -> IssuedToken:
    return by.issue(
        user_id=USER, organization_id=ORGANIZATION, role=Role.MEMBER, scopes=scopes, session_id=SESSION, epoch=3
    )


def issue(by: TokenIssuer | None = None) -> str:
    return issued(by or issuer()).token


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(part: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def claims(**changes: Any) -> dict[str, Any]:
    changed = {**decoded(issue().split(".")[1]), **changes}
    return {name: value for name, value in changed.items() if value is not None}


def signed(payload: dict[str, Any] | None = None, *, keys: SigningKeys = KEYS, **header: Any) -> str:
    """A token with our key's true signature, whatever it says."""
    headers = {"alg": "EdDSA", "typ": "at+jwt", "kid": keys.key_id, **header}
    headers = {name: value for name, value in headers.items() if value is not None}
    body = payload if payload is not None else claims()
    message = f"{b64(json.dumps(headers).encode())}.{b64(json.dumps(body).encode())}"
    return f"{message}.{b64(keys.private_key.sign(message.encode()))}"


def unsigned(**header: Any) -> str:
    header = {"typ": "at+jwt", "kid": KEYS.key_id, **header}
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims()).encode())}."


def key_confusion() -> str:
    """HS256, with the public key as the secret."""
    public = KEYS.private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = {"alg": "HS256", "typ": "at+jwt", "kid": KEYS.key_id}
    message = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims()).encode())}"
    return f"{message}.{b64(hmac.new(public, message.encode(), hashlib.sha256).digest())}"


def other_algorithm() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims(), key, algorithm="ES256", headers={"typ": "at+jwt", "kid": KEYS.key_id})


def foreign_key_under_our_id() -> str:
    foreign = SigningKeys(ed25519.Ed25519PrivateKey.generate())
    return signed(keys=foreign, kid=KEYS.key_id)


def embedded_jwk() -> str:
    foreign = SigningKeys(ed25519.Ed25519PrivateKey.generate())
    return signed(keys=foreign, kid=foreign.key_id, jwk=foreign.jwks()["keys"][0])


def with_part(index: int, change: Callable[[str], str]) -> str:
    parts = issue().split(".")
    parts[index] = change(parts[index])
    return ".".join(parts)


def payload_changed_after_signing() -> str:
    return with_part(1, lambda part: b64(json.dumps({**decoded(part), "role": "owner"}).encode()))


def other_spelling_of_the_signature() -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return with_part(2, lambda part: part[:-1] + alphabet[alphabet.index(part[-1]) + 1])


NOW = int(time())  # when the tests were collected; they may run minutes later
DAY = 86_400

FORGED: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned(alg="none"),
    "alg None": lambda: unsigned(alg="None"),
    "alg none with a signature": lambda: signed(alg="none"),
    "no alg": lambda: signed(alg=None),
    "alg as a list": lambda: signed(alg=["EdDSA"]),
    "HS256 with the public key": key_confusion,
    "ES256 with a key of its own": other_algorithm,
    "no typ": lambda: signed(typ=None),
    "typ JWT": lambda: signed(typ="JWT"),
    "typ of a refresh token": lambda: signed(typ="rt+jwt"),
    "typ as a number": lambda: signed(typ=1),
    "critical extension": lambda: signed(crit=["exp"]),
    "unencoded payload": lambda: signed(b64=False, crit=["b64"]),
    "no kid": lambda: signed(kid=None),
    "unknown kid": lambda: signed(kid="another"),
    "kid as a path": lambda: signed(kid="../../../../dev/null"),
    "kid as SQL": lambda: signed(kid="' UNION SELECT 'key'--"),
    "kid as a list": lambda: signed(kid=[KEYS.key_id]),
    "kid as an object": lambda: signed(kid={"$ne": ""}),
    "foreign key under our kid": foreign_key_under_our_id,
    "key in the header": embedded_jwk,
    "jku": lambda: signed(
        keys=SigningKeys(ed25519.Ed25519PrivateKey.generate()), kid="theirs", jku="https://evil.example/jwks.json"
    ),
    "foreign issuer": lambda: issue(issuer(name="someone else")),
    "foreign audience": lambda: issue(issuer(audience="another-api")),
    "audience as a list": lambda: signed(claims(aud=["api", "another-api"])),
    "expired": lambda: signed(claims(exp=NOW - 1, iat=NOW - 60)),
    "expires now": lambda: signed(claims(exp=NOW)),
    "exp as a string": lambda: signed(claims(exp="tomorrow")),
    "exp beyond numbers": lambda: signed(claims(exp=float("inf"))),
    "exp not a number": lambda: signed(claims(exp=float("nan"))),
    "exp as a list": lambda: signed(claims(exp=[NOW + 60])),
    "not yet valid": lambda: signed(claims(nbf=NOW + DAY)),
    "issued in the future": lambda: signed(claims(iat=NOW + DAY, exp=NOW + 2 * DAY)),
    "user that is no id": lambda: signed(claims(sub="root")),
    "user as a number": lambda: signed(claims(sub=1)),
    "organization as a list": lambda: signed(claims(org=[str(ORGANIZATION)])),
    "unknown role": lambda: signed(claims(role="god")),
    "role as a list": lambda: signed(claims(role=["owner"])),
    "scope as a list": lambda: signed(claims(scope=["audit:read"])),
    "token id as a number": lambda: signed(claims(jti=7)),
    "session that is no id": lambda: signed(claims(sid="all")),
    "epoch as a string": lambda: signed(claims(epoch="3")),
    "epoch as a boolean": lambda: signed(claims(epoch=True)),
    "epoch below zero": lambda: signed(claims(epoch=-1)),
    "epoch beyond numbers": lambda: signed(claims(epoch=float("inf"))),
    "payload changed after signing": payload_changed_after_signing,
    "payload that is a list": lambda: signed([]),  # type: ignore[arg-type]
    "payload empty": lambda: signed({}),
    "other spelling of the signature": other_spelling_of_the_signature,
    "signature missing": lambda: issue().rsplit(".", 1)[0] + ".",
    "signature truncated": lambda: issue()[:-1],
    "signature of zeros": lambda: with_part(2, lambda _: b64(bytes(64))),
    "header that is no JSON": lambda: with_part(0, lambda _: b64(b"{")),
    "header that is a list": lambda: with_part(0, lambda _: b64(b"[]")),
    "header of deep JSON": lambda: with_part(0, lambda _: b64(b"[" * 2_000)),
    "header that is no UTF-8": lambda: with_part(0, lambda _: b64(b"\xff\xfe\xfd")),
    "two parts": lambda: ".".join(issue().split(".")[:2]),
    "four parts": lambda: issue() + ".AAAA",
    "five parts, as if encrypted": lambda: "a.b.c.d." + "A" * 86,
    "doubled dot": lambda: issue().replace(".", "..", 1),
    "dots alone": lambda: "..",
    "empty": lambda: "",
    "trailing newline": lambda: issue() + "\n",
    "leading space": lambda: " " + issue(),
    "padding": lambda: issue() + "==",
    "standard base64": lambda: with_part(2, lambda part: "+/" + part[2:]),
    "NUL": lambda: issue() + "\0",
    "full-width dots": lambda: issue().replace(".", "\uff0e"),
    "unicode": lambda: "é" * 50 + "." + "ü" * 50 + "." + "A" * 86,
    "lone surrogate": lambda: "\ud800." + issue(),
    "oversized": lambda: signed(claims(scope="a " * MAX_TOKEN_CHARACTERS)),
    "a megabyte": lambda: "A" * 1_000_000,
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_forged_tokens_are_refused(forge: Callable[[], str]) -> None:
    checking = verifier()
    checking.verify(issue())
    for _ in range(2):  # the second time too: a refusal leaves nothing behind
        with pytest.raises(InvalidToken):
            checking.verify(forge())


@pytest.mark.parametrize("claim", tokens.REQUIRED_CLAIMS)
def test_each_required_claim_is_required(claim: str) -> None:
    with pytest.raises(InvalidToken):
        verifier().verify(signed(claims(**{claim: None})))


def test_the_forgery_works_when_nothing_is_forged() -> None:
    """The control of the corpus: its helper makes tokens that pass."""
    assert verifier().verify(signed()).user_id == USER
    assert verifier().verify(signed(jku="https://evil.example/jwks.json")).user_id == USER


def test_a_caller_comes_back_as_issued() -> None:
    caller = verifier().verify(issue())
    assert (caller.user_id, caller.organization_id, caller.role) == (USER, ORGANIZATION, Role.MEMBER)
    assert caller.scopes == {"equipment:read", "equipment:write"}
    assert len(caller.token_id) == 32
    assert (caller.session_id, caller.epoch) == (SESSION, 3)


def test_a_token_of_the_release_before_has_no_tier() -> None:
    assert verifier().verify(signed(claims(tier=None))).tier == STANDARD_TIER
    assert verifier().verify(signed(claims(tier="premium"))).tier == "premium"
    with pytest.raises(InvalidToken):
        verifier().verify(signed(claims(tier=5)))


def test_a_caller_without_scopes() -> None:
    assert verifier().verify(issued(issuer(), scopes=()).token).scopes == frozenset()


def test_the_answer_tells_the_lifetime() -> None:
    answer = issued(issuer(seconds=900.0))
    assert answer.expires_in == 900
    body = decoded(answer.token.split(".")[1])
    assert body["exp"] - body["iat"] == 900


def test_clocks_may_differ_a_little() -> None:
    assert verifier().verify(signed(claims(iat=int(time()) + 3))).user_id == USER


def test_a_good_token_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checking, token = verifier(), issue()
    first = checking.verify(token)
    monkeypatch.setattr(tokens.jwt, "decode", None)
    assert checking.verify(token) is first


def test_a_remembered_token_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    checking, token = verifier(), issue()
    checking.verify(token)
    monkeypatch.setattr(tokens, "time", lambda: time() + 61)
    with pytest.raises(InvalidToken):
        checking.verify(token)
    assert not checking._verified


def test_what_is_remembered_is_bounded_and_the_least_used_goes_first() -> None:
    checking = verifier(remember=2)
    first, second, third = issue(), issue(), issue()
    for token in (first, second, first, third):
        checking.verify(token)
    assert list(checking._verified) == [first, third]


def test_keys_from_pem() -> None:
    pem = KEYS.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert SigningKeys.from_pem(pem).jwks() == KEYS.jwks()


def test_other_keys_are_refused() -> None:
    pem = (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )
    with pytest.raises(ValueError, match="Ed25519"):
        SigningKeys.from_pem(pem)


def test_derived_keys_follow_the_secret() -> None:
    assert SigningKeys.derived_from("one").key_id == SigningKeys.derived_from("one").key_id
    assert SigningKeys.derived_from("one").key_id != SigningKeys.derived_from("two").key_id


def test_jwks_verifies_with_any_library_and_holds_no_private_part() -> None:
    (key,) = KEYS.jwks()["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}
    public = jwt.PyJWK(key)
    assert jwt.decode(issue(), public, algorithms=["EdDSA"], audience="api")["sub"] == str(USER)


def test_thumbprint_is_that_of_rfc_8037() -> None:
    """RFC 8037, appendices A.1 and A.3."""
    private = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    keys = SigningKeys(ed25519.Ed25519PrivateKey.from_private_bytes(private))
    assert keys.key_id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert keys.jwks()["keys"][0]["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
