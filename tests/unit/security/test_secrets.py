"""Secrets that change while the process runs."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from app.platform.security.secrets import MAX_BYTES, Keyring, SecretFiles, UnreadableSecret, read_secret


def derive(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def test_what_is_derived_follows_the_ring() -> None:
    ring = Keyring("one")
    keys = ring.derived(derive)
    assert keys.all == (derive("one"),)
    ring.follow(Keyring("two", ["one"]))
    assert keys.all == (derive("two"), derive("one"))
    assert keys.first == derive("two")


def test_it_is_derived_once() -> None:
    made = []
    keys = Keyring("one").derived(lambda secret: made.append(secret) or derive(secret))  # type: ignore[func-returns-value]
    assert keys.all == keys.all
    assert made == ["one"]


def test_a_ring_tells_nothing() -> None:
    ring = Keyring("a-secret", ["another-secret"])
    for text in (repr(ring), str(ring), f"{ring.derived(derive)}"):
        assert "secret" not in text.replace("security.secrets", "")


def test_the_line_break_at_the_end_is_no_part_of_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for written in ("  kept \n", "  kept \r\n", "  kept "):
        file.write_bytes(written.encode())
        assert read_secret(file) == "  kept "


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (MAX_BYTES + 1), None], ids=["binary", "large", "absent"])
def test_what_cant_be_read_is_named_and_not_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnreadableSecret, match=str(file)) as raised:
        read_secret(file)
    assert "xxxx" not in str(raised.value)
    assert raised.value.__cause__ is None


class Rotations:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "key"
        self.seen: list[str] = []
        self.files = SecretFiles(lambda: {"key": self.file}, self.rotated)
        self.write("one")

    def rotated(self, found: Mapping[str, str]) -> None:
        if found["key"].startswith("bad"):
            raise ValueError(f"{found['key']} can't be used")
        self.seen.append(found["key"])

    def write(self, secret: str) -> None:
        self.file.write_text(secret)


async def test_the_first_look_and_each_change_are_handed_over_once(tmp_path: Path) -> None:
    rotations = Rotations(tmp_path)
    for _ in range(2):
        await rotations.files.look()
    rotations.write("two")
    for _ in range(2):
        await rotations.files.look()
    assert rotations.seen == ["one", "two"]


async def test_a_file_that_is_added_is_seen_and_one_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    seen: list[Mapping[str, str]] = []
    files = SecretFiles(lambda: {path.name: path for path in tmp_path.iterdir()}, seen.append)
    (tmp_path / "one").write_text("1")
    await files.look()
    (tmp_path / "two").write_text("2")
    await files.look()
    (tmp_path / "one").unlink()
    await files.look()
    assert seen == [{"one": "1"}, {"one": "1", "two": "2"}]


async def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes does it: the folder behind the link is another one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(name)
    data = tmp_path / "data"
    data.symlink_to("one")
    seen: list[str] = []
    files = SecretFiles(lambda: {"key": data / "key"}, lambda found: seen.append(found["key"]))
    await files.look()
    new = tmp_path / "new"
    new.symlink_to("two")
    new.replace(data)
    await files.look()
    assert seen == ["one", "two"]


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, lines = logging.getLogger("app.platform.security.secrets"), Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(level)


async def test_what_cant_be_used_is_left_alone_and_not_told(tmp_path: Path, lines: Lines) -> None:
    rotations = Rotations(tmp_path)
    await rotations.files.look()
    rotations.write("bad-secret")
    await rotations.files.look()
    rotations.file.unlink()
    await rotations.files.look()
    rotations.write("three")
    await rotations.files.look()
    assert rotations.seen == ["one", "three"]
    complaints = [record for record in lines.records if record.levelno >= logging.WARNING]
    assert [record.levelno for record in complaints] == [logging.ERROR, logging.WARNING]
    assert not any("bad-secret" in record.getMessage() or record.exc_info for record in complaints)


async def test_without_files_nothing_is_handed_over() -> None:
    seen: list[Mapping[str, str]] = []
    await SecretFiles(dict, seen.append).look()
    assert seen == []
