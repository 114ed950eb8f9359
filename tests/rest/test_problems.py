from __future__ import annotations

import json

import pytest

from artcafe import errors
from artcafe.errors import REGISTRY, ArtcafeError
from artcafe.rest import problems


def headers(error: ArtcafeError) -> dict[str, str]:
    answer = problems.answer(error, "req_x")
    return {name: answer.headers[name] for name in ("www-authenticate", "retry-after", "allow") if name in answer.headers}


def test_error_headers_tell_clients_whether_to_retry() -> None:
    assert headers(errors.NotStored()) == {"retry-after": "1"}
    assert headers(errors.QuotaFull()) == {"retry-after": "1"}
    assert headers(errors.KeyReused()) == {}
    assert headers(errors.CredentialsExpired()) == {"www-authenticate": "Bearer"}
    assert headers(errors.MethodNotAllowed("PUT", "GET, POST")) == {"allow": "GET, POST"}


def test_every_invalid_field_is_listed() -> None:
    error = problems.InvalidFields("a", "is required", (errors.Invalid("b[0]", "is odd"),))
    body = json.loads(bytes(problems.answer(error, "req_x").body))
    assert body["detail"] == "a: is required; b[0]: is odd"
    assert body["errors"] == [{"field": "a", "problem": "is required"}, {"field": "b[0]", "problem": "is odd"}]


def test_field_refused_by_a_service_has_the_same_form() -> None:
    body = json.loads(bytes(problems.answer(errors.Invalid("name", "is empty"), "req_x").body))
    assert body["errors"] == [{"field": "name", "problem": "is empty"}]


@pytest.mark.parametrize("kind", REGISTRY.values(), ids=REGISTRY)
def test_every_error_has_a_valid_example(kind: type[ArtcafeError]) -> None:
    example = problems.responses(kind)[kind.status]["content"][problems.MEDIA_TYPE]["examples"][kind.code]["value"]
    assert problems.ProblemResponse.model_validate(example).code == kind.code
    assert "{" not in example["detail"].replace("{}", "").replace('{"', "")
