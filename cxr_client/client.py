"""A client that waits when the service asks it to, and says in one exception what went wrong.

ClientError
├── Unreachable     no answer that HTTP knows, however long we waited
│   └── TimedOut    the service took the request, and had not answered when the time was over
└── ServiceProblem  the service said why not: status, code, detail, request_id

Requests are tried again if a later try may succeed; Retry-After is obeyed.
"""

import random
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack, cast

import httpx

from cxr_client.answers import PredictionDict

DEFAULT_URL = "http://127.0.0.1:8000"

_AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same request may well succeed."""

_FIRST_WAIT_S, _MAX_WAIT_S = 0.5, 30.0


class Asking(TypedDict, total=False):
    """What may be asked beside the file; the service's defaults hold for what is left out."""

    model: str
    tta: bool
    operating_point: str
    prevalence: float
    age_years: float
    sex: Literal["M", "F", "O"]
    view_position: Literal["PA", "AP", "LATERAL"]


class ClientError(Exception):
    """There is no answer; `may_pass` tells whether a later try could get one."""

    may_pass = False
    retry_after_s: float | None = None
    """Seconds after which the service asks to be tried again; None if it does not say."""


class Unreachable(ClientError):
    """The service could not be reached, or hung up."""

    may_pass = True


class TimedOut(Unreachable):
    """The service took the request, and did not answer within `timeout_s`."""


class ServiceProblem(ClientError):
    """The service answered with a problem document (RFC 9457)."""

    def __init__(self, status: int, code: str, detail: str, request_id: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.status, self.code, self.detail, self.request_id = status, code, detail, request_id
        self.may_pass = status in _AGAIN


class Client:
    """One service; may be used from several threads at once. Close it, or use it in a `with`
    block.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            url: where the service is, with its path prefix if it has one.
            key: API key, sent as a bearer token.
            timeout_s: how long one try may take.
            patience_s: how long to go on trying one request that may pass later.
            transport: how requests travel; by default over the network.
        """
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout_s, transport=transport
        )
        self._patience_s = patience_s
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and wait for nothing any more."""
        self._closed.set()
        self._http.close()

    def predict(
        self, file: Path | bytes, *, heatmap: bool = False, **asking: Unpack[Asking]
    ) -> PredictionDict:
        """Classify one radiograph; its name is not sent. Raises `ClientError`, or `OSError` if it
        can't be read.
        """
        parameters = {**asking, **({"heatmap": True} if heatmap else {})}
        return cast("PredictionDict", self._post("predict", file, parameters).json())

    def predict_dicom(
        self,
        file: Path | bytes,
        *,
        result: Literal["sr", "sc"],
        traceparent: str | None = None,
        **asking: Unpack[Asking],
    ) -> bytes:
        """Classify one DICOM radiograph; gives the answer as a DICOM file. Raises as `predict`.

        Args:
            file: the radiograph.
            result: `sr` for a structured report, `sc` for a picture of the evidence.
            traceparent: the caller's place in a distributed trace (W3C Trace Context).
            asking: what else is asked.
        """
        parameters = {"result": result, **asking}
        return self._post("predict/dicom", file, parameters, traceparent=traceparent).content

    def preview(self, file: Path | bytes) -> bytes:
        """Draw one radiograph as the service reads it; gives a grey PNG. Raises as `predict`."""
        return self._post("preview", file, {}).content

    def model(self, name: str) -> dict[str, Any]:
        """Describe a model: versions, scope, thresholds, metrics. Raises `ClientError`."""
        return cast(
            "dict[str, Any]", self._send(self._http.build_request("GET", f"models/{name}")).json()
        )

    def _post(
        self,
        path: str,
        file: Path | bytes,
        parameters: Mapping[str, Any],
        *,
        traceparent: str | None = None,
    ) -> httpx.Response:
        content = file.read_bytes() if isinstance(file, Path) else file
        headers = {"content-type": "application/octet-stream"}
        if traceparent is not None:
            headers["traceparent"] = traceparent
        return self._send(
            self._http.build_request(
                "POST", path, params=dict(parameters), content=content, headers=headers
            )
        )

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Send until there is an answer, or a problem that stays, or patience ends."""
        until, wait_s = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        while True:
            try:
                response = self._http.send(request)
                if response.is_success:
                    return response
                error, asked_s = _problem(response), _retry_after_s(response)
            except httpx.TransportError as exc:
                kind = TimedOut if isinstance(exc, httpx.ReadTimeout) else Unreachable
                error, asked_s = kind(f"{request.url.host}: {type(exc).__name__}"), None
            error.retry_after_s = asked_s
            pause_s = asked_s if asked_s is not None else wait_s * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            if not error.may_pass or time.monotonic() + pause_s > until:
                raise error
            if self._closed.wait(pause_s):
                raise error
            wait_s = min(2 * wait_s, _MAX_WAIT_S)


def _problem(response: httpx.Response) -> ClientError:
    try:
        document = response.json()
        return ServiceProblem(
            response.status_code, document["code"], document["detail"], document["request_id"]
        )
    except (ValueError, TypeError, KeyError):  # a proxy's own page, not the service's words
        return ServiceProblem(
            response.status_code, f"http_{response.status_code}", response.reason_phrase, ""
        )


def _retry_after_s(response: httpx.Response) -> float | None:
    """Read Retry-After in both its forms (RFC 9110 section 10.2.3); None if it says nothing."""
    stated = response.headers.get("retry-after", "")
    if stated.isascii() and stated.isdigit():
        return float(stated)
    try:
        return max(0.0, (parsedate_to_datetime(stated) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
