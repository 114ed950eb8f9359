"""DynamoDB errors with a remedy: missing credentials, a wrong region, an unreachable endpoint, missing permissions."""

from __future__ import annotations

from typing import Final

from artcafe.errors import ArtcafeError, TablesRefused, TablesUnreachable, Unavailable

CHAIN: Final = "AWS_PROFILE, AWS_ACCESS_KEY_ID, 'aws configure' or 'aws sso login', or the role of the machine"
REMEDIES: Final = {
    "NoCredentialsError": f"provide credentials as for any AWS tool: {CHAIN}",
    "PartialCredentialsError": "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "TokenRetrievalError": "log in again: aws sso login",
    "UnauthorizedSSOTokenError": "log in again: aws sso login",
    "ProfileNotFound": "check AWS_PROFILE and ~/.aws/config",
    "UnrecognizedClientException": f"AWS does not know these credentials; check {CHAIN}",
    "InvalidSignatureException": "the secret key does not match the access key; check also this machine's clock",
    "ExpiredTokenException": "the credentials have expired; get new ones",
    "AccessDeniedException": "grant the user or role that permission on the tables; docs/dynamodb.md lists all of them",
    "ResourceNotFoundException": "create the tables: artcafe tables apply",
}
"""Remedies by the name of botocore's exception or DynamoDB's error code. A retry cannot help with any of these."""


def explain(exc: Unavailable) -> ArtcafeError:
    """Return the error for the user, with a remedy."""
    cause = exc.__cause__
    if cause is None:
        return exc
    name = getattr(cause, "code", type(cause).__name__)
    remedy = REMEDIES.get(name)
    problem = f"{exc.what} cannot be used: {str(cause).rstrip('.') or name}"
    if remedy is not None:
        return TablesRefused(problem, remedy)
    return TablesUnreachable(problem, "check the region, ARTCAFE_DYNAMODB_ENDPOINT and the network, and try again")
