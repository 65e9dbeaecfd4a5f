"""Faults of the service and of requests to it.

    ServiceError
    ├── MalformedRequest      malformed_request
    ├── Unauthorized          unauthorized
    ├── Forbidden             forbidden
    ├── MisdirectedRequest    misdirected_request
    ├── UnknownModel          unknown_model
    ├── NotFound              not_found
    ├── NotAcceptable         not_acceptable
    ├── SlowClient            slow_client
    ├── ClientGone            client_gone (logged, never answered)
    ├── Unavailable           has the seconds to wait
    │   ├── RateLimited           rate_limited
    │   ├── Overloaded            overloaded
    │   └── NotReady              not_ready
    ├── DeadlineExceeded      deadline_exceeded
    └── InferenceFailed       inference_failed

Faults of an uploaded file are kinds of `cxr.errors.ImageError`. `app.api.problems` maps both
families to HTTP statuses. Messages go to the sender: they never hold a tag's value, a pixel, a
file name or anything else of the patient.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Base of every fault that the service raises on purpose; `code` is its public name."""

    code: ClassVar[str] = "service_error"


class MalformedRequest(ServiceError):
    """No file, a broken body, or a bad parameter."""

    code = "malformed_request"


class Unauthorized(ServiceError):
    """A key is needed, and none or a wrong one was sent."""

    code = "unauthorized"


class Forbidden(ServiceError):
    """A web page of another origin sends this, and no key is asked for."""

    code = "forbidden"


class MisdirectedRequest(ServiceError):
    """The Host header names another service."""

    code = "misdirected_request"


class UnknownModel(ServiceError):
    """The store has no model of this name."""

    code = "unknown_model"


class NotFound(ServiceError):
    """There is nothing at this address."""

    code = "not_found"


class NotAcceptable(ServiceError):
    """The client reads none of the formats that this endpoint can write."""

    code = "not_acceptable"


class SlowClient(ServiceError):
    """The body did not arrive in time."""

    code = "slow_client"


class ClientGone(ServiceError):
    """The client left before its answer; its work is dropped."""

    code = "client_gone"


class Unavailable(ServiceError):
    """The request may succeed later, after `retry_after_s` (whole seconds, at least 1)."""

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class RateLimited(Unavailable):
    """This key has used up its calls for now."""

    code = "rate_limited"


class Overloaded(Unavailable):
    """Admission refused: too much work is waiting."""

    code = "overloaded"


class NotReady(Unavailable):
    """No good version of the model is served, or the service is going down."""

    code = "not_ready"


class DeadlineExceeded(ServiceError):
    """The answer would come too late, so the work was dropped."""

    code = "deadline_exceeded"


class InferenceFailed(ServiceError):
    """The model could not answer. The sender gets no further detail."""

    code = "inference_failed"
