"""The running service keeps what its own OpenAPI document promises, whatever is sent."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.bundles import write_made_bundle
from tests.server import Server, running_server

KEY = "correct-horse-battery-staple"


def no_crash(_context: Any, response: schemathesis.Response, _case: Any) -> None:
    """The only answers over 499 are those that ask the client to come back, or keep its own
    deadline."""
    assert response.status_code in (503, 504) or response.status_code < 500


PROMISES: list[Any] = [
    no_crash, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection, unsupported_method,
]  # fmt: skip
"""All but that data of the right form is accepted: a form can't say that bytes are a radiograph,
and junk is rightly 415."""

bounded = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that asks for a key."""
    store = tmp_path_factory.mktemp("store")
    write_made_bundle(store, "bright", 1)
    keys = {
        "api_keys": f"ward:{hashlib.sha256(KEY.encode()).hexdigest()}",
        "max_calls_per_minute": 0,
    }
    with running_server(
        store, tmp_path_factory.mktemp("service") / "log", default_model="bright", **keys
    ) as server:
        yield server


@pytest.mark.parametrize("key", [KEY, "wrong"], ids=["a right key", "a wrong key"])
def test_answers_are_those_that_the_document_promises(
    server: Server, key: str, subtests: pytest.Subtests
) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations: Iterator[Any] = document.get_all_operations()
    for found in operations:
        operation = found.ok()

        @bounded
        @given(operation.as_strategy())
        def keep_promises(case: Any) -> None:
            case.call_and_validate(headers={"authorization": f"Bearer {key}"}, checks=PROMISES)

        with subtests.test(operation.label):
            keep_promises()
