"""Why DynamoDB cannot be used, as a sentence with a remedy: no credentials, a wrong region, nobody there, a missing right."""

from __future__ import annotations

from typing import Final

from artcafe.errors import ArtcafeError, TablesRefused, TablesUnreachable, Unavailable

CHAIN: Final = "AWS_PROFILE, AWS_ACCESS_KEY_ID, 'aws configure' or 'aws sso login', or the role of the machine"
REMEDIES: Final = {
    "NoCredentialsError": f"give them in one of the ways that AWS's tools know: {CHAIN}",
    "PartialCredentialsError": "one half of them is missing: AWS_ACCESS_KEY_ID goes with AWS_SECRET_ACCESS_KEY",
    "TokenRetrievalError": "log in again: aws sso login",
    "UnauthorizedSSOTokenError": "log in again: aws sso login",
    "ProfileNotFound": "look at AWS_PROFILE and ~/.aws/config",
    "UnrecognizedClientException": f"the credentials are nobody's; look at {CHAIN}",
    "InvalidSignatureException": "the secret key is not that of the access key; look also at this machine's clock",
    "ExpiredTokenException": "the credentials have expired; get new ones",
    "AccessDeniedException": "give the credentials' user or role that right on the tables, as docs/dynamodb.md lists them",
    "ResourceNotFoundException": "make the tables: artcafe tables apply",
}
"""By the name of botocore's exception, or DynamoDB's code. Only these stay as they are when one tries again."""


def explain(exc: Unavailable) -> ArtcafeError:
    """The error for whoever is at the terminal, with what to do."""
    cause = exc.__cause__
    if cause is None:
        return exc
    name = getattr(cause, "code", type(cause).__name__)
    remedy = REMEDIES.get(name)
    problem = f"{exc.what} cannot be used: {str(cause).rstrip('.') or name}"
    if remedy is not None:
        return TablesRefused(problem, remedy)
    return TablesUnreachable(problem, "look at the region, ARTCAFE_DYNAMODB_ENDPOINT and the network, and try again")
