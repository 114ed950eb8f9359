"""A Cognito user pool in the emulator, with people who log in to it through an app client."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config

from tests.aws import Aws

PASSWORD = "Correct-horse-7-battery"


@dataclass(frozen=True)
class Session:
    """The tokens that Cognito returns for a login."""

    user_id: str
    email: str
    access_token: str
    id_token: str
    refresh_token: str


class Pool:
    """A user pool with an app client. A server's settings need `issuer` and `jwks_url`."""

    def __init__(self, aws: Aws) -> None:
        region = aws.new_region()
        self._admin: Any = boto3.client("cognito-idp", region, endpoint_url=aws.url)
        # People's requests need no AWS credentials.
        self._app: Any = boto3.client("cognito-idp", region, endpoint_url=aws.url, config=Config(signature_version=UNSIGNED))
        self.id: str = self._admin.create_user_pool(PoolName="people", UsernameAttributes=["email"])["UserPool"]["Id"]
        self.client_id = self.new_client()
        self.issuer = f"https://cognito-idp.{region}.amazonaws.com/{self.id}"
        self.jwks_url = f"{aws.url}/{self.id}/.well-known/jwks.json"

    def new_client(self) -> str:
        """Create another app client of the pool."""
        flows = ["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]
        made = self._admin.create_user_pool_client(UserPoolId=self.id, ClientName="app", ExplicitAuthFlows=flows)
        return str(made["UserPoolClient"]["ClientId"])

    @property
    def flags(self) -> list[str]:
        """Return the flags with which `artcafe up` trusts this pool."""
        return ["--issuer", self.issuer, "--jwks-url", self.jwks_url, "--client-ids", self.client_id]

    def person(self, email: str | None = None, *, is_verified: bool = True) -> Session:
        """Create a person, and log them in."""
        email = email or f"{uuid.uuid4()}@example.com"
        attributes = [{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": str(is_verified).lower()}]
        self._admin.admin_create_user(UserPoolId=self.id, Username=email, UserAttributes=attributes, MessageAction="SUPPRESS")
        self._admin.admin_set_user_password(UserPoolId=self.id, Username=email, Password=PASSWORD, Permanent=True)
        return self.login(email)

    def login(self, email: str, client_id: str | None = None) -> Session:
        """Log in a person of the pool again."""
        answer = self._app.initiate_auth(
            ClientId=client_id or self.client_id,
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": email, "PASSWORD": PASSWORD},
        )["AuthenticationResult"]
        return self._session(email, answer, answer["RefreshToken"])

    def refresh(self, session: Session) -> Session:
        """Return fresh tokens for the same person."""
        answer = self._app.initiate_auth(
            ClientId=self.client_id, AuthFlow="REFRESH_TOKEN_AUTH", AuthParameters={"REFRESH_TOKEN": session.refresh_token}
        )["AuthenticationResult"]
        return self._session(session.email, answer, session.refresh_token)

    def _session(self, email: str, answer: dict[str, str], refresh_token: str) -> Session:
        told = self._app.get_user(AccessToken=answer["AccessToken"])["UserAttributes"]
        subject = next(each["Value"] for each in told if each["Name"] == "sub")
        return Session(subject, email, answer["AccessToken"], answer["IdToken"], refresh_token)
