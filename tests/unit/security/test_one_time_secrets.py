"""What is good once, and what is kept sealed: codes, tokens, and the policy for passwords."""

import hashlib
from pathlib import Path

import pytest

from app.platform.security import totp
from app.platform.security.password_policy import SHIPPED, BreachedPasswords, PasswordPolicy
from app.platform.security.sealing import Sealer, Unreadable
from app.platform.security.secrets import Keyring
from app.platform.security.single_use import code_digest, digest, new_code, new_token

# RFC 6238, appendix B: the last six digits of the SHA-1 row.
RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
RFC_CODES = {59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037"}


@pytest.mark.parametrize(("moment", "code"), RFC_CODES.items())
def test_codes_are_those_of_the_rfc(moment: int, code: str) -> None:
    assert totp.matching_step(RFC_SECRET, code, now=moment) == moment // 30


def test_a_code_is_good_one_step_early_or_late() -> None:
    code, step = RFC_CODES[1234567890], 1234567890 // 30
    found = [totp.matching_step(RFC_SECRET, code, now=(step + steps) * 30) for steps in (-2, -1, 0, 1, 2)]
    assert found == [None, step, step, step, None]


@pytest.mark.parametrize("code", ["", "0", "28708", "2870820", "abcdef", "２８７０８２", "287082 "])
def test_what_is_no_code_matches_no_step(code: str) -> None:
    assert totp.matching_step(RFC_SECRET, code, now=59) is None


def test_what_is_sealed_is_opened_for_its_purpose_alone() -> None:
    sealer = Sealer("a key")
    sealed = sealer.seal(b"a secret", b"ann")
    assert sealer.open(sealed, b"ann") == b"a secret"
    assert b"a secret" not in sealed
    assert sealer.seal(b"a secret", b"ann") != sealed
    for changed, purpose in ((sealed, b"bob"), (sealed[:-1] + bytes([sealed[-1] ^ 1]), b"ann"), (b"", b"ann")):
        with pytest.raises(Unreadable):
            sealer.open(changed, purpose)


def test_a_key_is_changed_with_an_overlap() -> None:
    ring = Keyring("old")
    sealer = Sealer(ring)
    before = sealer.seal(b"a secret", b"ann")
    assert not sealer.rotating
    ring.follow(Keyring("new", ["old"]))
    after = sealer.seal(b"a secret", b"ann")
    assert sealer.rotating
    assert [sealer.open(sealed, b"ann") for sealed in (before, after)] == [b"a secret"] * 2
    ring.follow(Keyring("new"))
    assert sealer.open(after, b"ann") == b"a secret"
    with pytest.raises(Unreadable):
        sealer.open(before, b"ann")


def test_what_an_old_key_has_sealed_is_sealed_anew_and_nothing_else() -> None:
    sealed, sealer = Sealer("old").seal(b"a secret", b"ann"), Sealer(Keyring("new", ["old"]))
    renewed = sealer.renewed(sealed, b"ann")
    assert renewed is not None
    assert Sealer("new").open(renewed, b"ann") == b"a secret"
    assert sealer.renewed(renewed, b"ann") is None
    with pytest.raises(Unreadable):
        sealer.renewed(sealed, b"bob")


def test_tokens_and_codes_are_long_random_and_kept_as_digests() -> None:
    assert len({new_token() for _ in range(100)}) == len({new_code() for _ in range(100)}) == 100
    token = new_token()
    assert digest(token, "verify-email") != digest(token, "password-reset")
    assert token.encode() not in digest(token, "verify-email")


def test_a_code_is_the_same_however_it_is_typed_and_differs_by_owner() -> None:
    code, ann, bob = new_code(), b"a" * 16, b"b" * 16
    assert code_digest(code.upper().replace("-", " "), ann) == code_digest(code, ann) != code_digest(code, bob)


def list_of(path: Path, *passwords: str) -> Path:
    hashes = sorted(hashlib.sha1(each.encode()).hexdigest().upper() for each in passwords)
    path.write_text("".join(f"{each}:{number}\r\n" for number, each in enumerate(hashes)))
    return path


async def test_breached_passwords_are_found_wherever_they_stand(tmp_path: Path) -> None:
    passwords = [f"password number {number}" for number in range(200)]
    breached = BreachedPasswords([list_of(tmp_path / "list", *passwords)])
    assert [each for each in passwords if not await breached.include(each)] == []
    assert not any([await breached.include(f"no {each}") for each in passwords])


@pytest.mark.parametrize("count", [0, 1])
async def test_the_shortest_lists(tmp_path: Path, count: int) -> None:
    breached = BreachedPasswords([list_of(tmp_path / "list", *["the only one"][:count])])
    assert await breached.include("the only one") is bool(count)
    assert not await breached.include("another one")


async def test_the_list_that_is_shipped_knows_the_commonest() -> None:
    breached = BreachedPasswords([SHIPPED])
    assert [await breached.include(each) for each in ("Password123", "qwertyuiop", "correct horse")] == [
        *(True, True, False)
    ]
    lines = SHIPPED.read_text().split()
    assert lines == sorted(set(lines))


def test_a_list_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="list"):
        BreachedPasswords([tmp_path / "list"])


@pytest.mark.parametrize(
    ("password", "refused"),
    [
        ("aaaaaaaaaaaa", True),
        ("annabelle1985", True),
        ("Password1234", True),
        ("correct horse battery", False),
        ("annabelle likes long sentences", False),
        ("１２３４５６７８９０", True),  # what it is after NFKC
    ],
)
async def test_the_policy(password: str, refused: bool) -> None:
    policy = PasswordPolicy(BreachedPasswords([SHIPPED]))
    assert (await policy.weakness(password, "annabelle@example.com", "Annabelle Smith") is not None) is refused
