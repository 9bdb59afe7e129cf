"""What follows the files that secrets come from, while the process runs: the service's, and the worker's."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from app.platform.audit import AuditKeys
from app.platform.security.secrets import Keyring, SecretFiles
from app.secret_files import secret_files
from app.settings import Settings

Follow = Callable[[Settings], None]


@dataclass(frozen=True, slots=True)
class Keyrings:
    """`signing`: of all that the service signs by itself. `sealing`: of secrets that it keeps and reads again."""

    signing: Keyring
    sealing: Keyring

    @classmethod
    def of(cls, settings: Settings) -> "Keyrings":
        return cls(
            signing=_ring(settings.secret_key, settings.secret_keys_accepted),
            sealing=_ring(settings.encryption_key, settings.encryption_keys_previous),
        )

    @property
    def audit(self) -> AuditKeys:
        return AuditKeys(lambda: self.signing.secrets)

    def follow(self, settings: Settings) -> None:
        now = Keyrings.of(settings)
        self.signing.follow(now.signing)
        self.sealing.follow(now.sealing)


def secret_watch(settings: Settings, *followers: Follow) -> SecretFiles:
    """Each follower is given the settings as the files say them now, checked as at the start. It may raise ValueError:
    then those after it are not asked.
    """
    at_start = settings.model_dump(exclude_unset=True)

    def rotated(found: Mapping[str, str]) -> None:
        now = Settings(_env_file=None, **{**at_start, **found})
        for follow in followers:
            follow(now)

    return SecretFiles(lambda: secret_files(Settings.model_fields, os.environ), rotated)


def _ring(current: SecretStr, others: Sequence[SecretStr]) -> Keyring:
    return Keyring(current.get_secret_value(), [other.get_secret_value() for other in others])
