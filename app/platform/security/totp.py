"""Time-based one-time passwords (RFC 6238): six digits, steps of 30 s, one step of leeway to either side."""

import io
import time
from hmac import compare_digest

import pyotp
import segno

STEP_SECONDS = 30
LEEWAY_STEPS = 1
DIGITS = 6


def new_secret() -> str:
    """160 bits in base 32, as RFC 4226 asks."""
    return pyotp.random_base32()


def provisioning_uri(secret: str, account: str, issuer: str) -> str:
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=issuer)


def qr_code(uri: str) -> str:
    """As SVG."""
    written = io.BytesIO()
    segno.make(uri, error="m").save(written, kind="svg", scale=4, xmldecl=False, border=4)
    return written.getvalue().decode()


def matching_step(secret: str, code: str, now: float | None = None) -> int | None:
    """The step that the code is of, if it is near to the present one. All are compared, whichever matches."""
    present = int((time.time() if now is None else now) // STEP_SECONDS)
    generator = pyotp.TOTP(secret)
    steps = range(present - LEEWAY_STEPS, present + LEEWAY_STEPS + 1)
    matching = [step for step in steps if compare_digest(generator.generate_otp(step).encode(), code.encode())]
    return max(matching, default=None)
