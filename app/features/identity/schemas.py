"""What goes over the wire about people and organizations."""

from typing import Annotated, Literal
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.platform.http.types import Line, Secret, UtcTime
from app.platform.security.caller import Role


def normalize_email(value: str) -> str:
    """The address in lower case: nobody's mail server tells Ann@ from ann@, and no one should register both."""
    try:
        return validate_email(value, check_deliverability=False, test_environment=True).normalized.lower()
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


Email = Annotated[str, Field(max_length=254, json_schema_extra={"format": "email"}), AfterValidator(normalize_email)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


NewPassword = Annotated[Secret, Field(min_length=10, max_length=128)]
Password = Annotated[Secret, Field(min_length=1, max_length=128)]
Code = Annotated[Secret, Field(max_length=32, description="of the second factor, or a recovery code")]
MailedToken = Annotated[Secret, Field(min_length=1, max_length=64, description="from the mail")]


class Registration(Body):
    email: Email
    password: NewPassword
    full_name: Annotated[Line, Field(min_length=1, max_length=200)]
    organization: Annotated[Line, Field(min_length=1, max_length=200)]


class Credentials(Body):
    email: Email
    password: Password
    otp: Code | None = None
    cookie: Annotated[bool, Field(description="for browsers: the refresh token comes as a cookie")] = False


class RefreshRequest(Body):
    refresh_token: Annotated[Secret, Field(max_length=128)] | None = None


class Address(Body):
    email: Email


class EmailVerification(Body):
    token: MailedToken


class PasswordReset(Body):
    token: MailedToken
    password: NewPassword


class Confirmation(Body):
    """What is asked for again before something that matters."""

    password: Password
    otp: Code | None = None


class PasswordChange(Confirmation):
    new_password: NewPassword


class FactorSetup(BaseModel):
    secret: Annotated[str, Field(description="to be typed where no code can be scanned")]
    uri: str
    qr_svg: str


class FirstCode(Body):
    otp: Code


class RecoveryCodes(BaseModel):
    recovery_codes: Annotated[list[str], Field(description="each is good once; they are shown this once")]


class SessionOut(BaseModel):
    id: UUID
    device: Annotated[str, Field(description="the User-Agent that logged in")]
    address: Annotated[str, Field(description="where it was used last")]
    created_at: UtcTime
    last_used_at: UtcTime
    expires_at: UtcTime
    current: Annotated[bool, Field(description="whether this request belongs to it")]


class PasswordGrant(BaseModel):
    """The form of RFC 6749, 4.3: clients add fields of their own (`client_id`, ...), which are let be."""

    grant_type: Literal["password"] = "password"
    username: Email
    password: Password
    otp: Code | None = None


class UserOut(BaseModel):
    id: UUID
    email: str
    full_name: str
    role: Role
    organization_id: UUID
    organization: str
    created_at: UtcTime
    email_verified: bool


class Token(BaseModel):
    access_token: str
    refresh_token: Annotated[str | None, Field(description="null where it came as a cookie")]
    token_type: Literal["bearer"] = "bearer"
    expires_in: Annotated[int, Field(description="seconds")]
