"""Signing keys from a folder: a new one is published first and signs later, an old one verifies until it is removed."""

import os
import time
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.platform.security.caller import Role
from app.platform.security.key_folder import KeyFolder, NoSigningKey
from app.platform.security.tokens import InvalidToken, SigningKeys, TokenIssuer, TokenVerifier

ACTIVATION = 60.0


def put_key(folder: Path, name: str, age: float, *, curve: bool = False) -> Path:
    private = ec.generate_private_key(ec.SECP256R1()) if curve else ed25519.Ed25519PrivateKey.generate()
    path = folder / f"{name}.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    at(path, age)
    return path


def at(path: Path, age: float) -> None:
    os.utime(path, (time.time() - age,) * 2)


def key_id_of(path: Path) -> str:
    return SigningKeys.from_pem(path.read_text()).key_id


def opened(folder: Path) -> KeyFolder:
    return KeyFolder(folder, activation_seconds=ACTIVATION)


def published(folder: KeyFolder) -> set[str]:
    return {key["kid"] for key in folder.keys.jwks()["keys"]}


def token(keys: SigningKeys) -> str:
    issuer = TokenIssuer(keys, issuer="i", audience="a", lifetime_seconds=60)
    ids = {"user_id": uuid4(), "organization_id": uuid4(), "session_id": uuid4()}
    return issuer.issue(role=Role.MEMBER, scopes=(), epoch=0, **ids).token


def verifier(keys: SigningKeys) -> TokenVerifier:
    return TokenVerifier(keys, issuer="i", audience="a")


def test_a_new_key_is_published_at_once_and_signs_when_it_is_old_enough(tmp_path: Path) -> None:
    old = put_key(tmp_path, "old", age=1_000)
    folder = opened(tmp_path)
    new = put_key(tmp_path, "new", age=0)
    folder.look()
    assert published(folder) == {key_id_of(old), key_id_of(new)}
    assert folder.keys.key_id == key_id_of(old)
    at(new, ACTIVATION + 1)
    folder.look()
    assert folder.keys.key_id == key_id_of(new)


def test_tokens_of_before_are_good_until_their_key_is_removed(tmp_path: Path) -> None:
    old = put_key(tmp_path, "old", age=1_000)
    folder = opened(tmp_path)
    before, checking = token(folder.keys), verifier(folder.keys)
    put_key(tmp_path, "new", age=ACTIVATION + 1)
    folder.look()
    checking.verify(before)
    checking.verify(token(folder.keys))
    old.unlink()
    folder.look()
    with pytest.raises(InvalidToken):
        checking.verify(before)


def test_a_process_that_has_looked_verifies_what_another_signs_later(tmp_path: Path) -> None:
    """Which is why a key signs only when all have had the time to see it."""
    put_key(tmp_path, "old", age=1_000)
    first, second = opened(tmp_path), opened(tmp_path)
    new = put_key(tmp_path, "new", age=0)
    for folder in (first, second):
        folder.look()
    at(new, ACTIVATION + 1)
    first.look()
    assert first.keys.key_id != second.keys.key_id
    verifier(second.keys).verify(token(first.keys))


def test_control_a_key_that_signs_at_once_is_refused_where_nobody_has_looked_yet(tmp_path: Path) -> None:
    put_key(tmp_path, "old", age=1_000)
    first, second = (KeyFolder(tmp_path, activation_seconds=0) for _ in range(2))
    put_key(tmp_path, "new", age=0)
    first.look()
    with pytest.raises(InvalidToken):
        verifier(second.keys).verify(token(first.keys))


def test_what_is_no_key_is_left_out(tmp_path: Path) -> None:
    good = put_key(tmp_path, "good", age=100)
    put_key(tmp_path, "another-kind", age=50, curve=True)
    (tmp_path / "half-written.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    assert published(opened(tmp_path)) == {key_id_of(good)}


def test_an_empty_folder_is_refused_at_the_start_and_changes_nothing_later(tmp_path: Path) -> None:
    with pytest.raises(NoSigningKey):
        opened(tmp_path)
    only = put_key(tmp_path, "only", age=100)
    folder = opened(tmp_path)
    only.unlink()
    folder.look()
    verifier(folder.keys).verify(token(folder.keys))


def test_keys_that_are_all_new_are_used_from_the_oldest_on(tmp_path: Path) -> None:
    older = put_key(tmp_path, "b", age=20)
    put_key(tmp_path, "a", age=10)
    assert opened(tmp_path).keys.key_id == key_id_of(older)
