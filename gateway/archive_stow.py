"""An archive by DICOMweb: STOW-RS to store, QIDO-RS to ask (PS3.18 10.5 and 10.6)."""

import secrets
from collections.abc import Iterator
from typing import Any

import httpx

from gateway.archive import DUPLICATE, ArchiveDown, Rejected, Stored, rejected
from gateway.failpoints import failpoint
from gateway.settings import Destination
from gateway.tls import client_context

_DOWN = frozenset({401, 403, 404, 405, 407, 408, 429, 502, 503, 504})
"""Statuses that every other object would get now as well."""

_NEVER = frozenset({400, 406, 409, 410, 411, 413, 414, 415, 422})

_FAILED_SOP_SEQUENCE, _FAILURE_REASON = "00081198", "00081197"
_SOP_INSTANCE_UID = "00080018"
_JSON = "application/dicom+json"


class StowArchive:
    """One DICOMweb server."""

    def __init__(self, destination: Destination) -> None:
        """Prepare the connection; nothing is sent yet. Raises `OSError` if a file is missing."""
        assert destination.stow_url is not None
        headers, auth = {}, None
        if destination.key_file is not None:
            headers["authorization"] = f"Bearer {destination.key_file.read_text().strip()}"
        if destination.user_file is not None:
            user, _, password = destination.user_file.read_text().strip().partition(":")
            auth = httpx.BasicAuth(user, password)
        self._url = destination.stow_url.rstrip("/")
        self._http = httpx.Client(
            headers=headers,
            auth=auth,
            timeout=destination.timeout_seconds,
            verify=client_context(destination.tls) if destination.tls else True,
        )

    def store(self, content: bytes) -> None:
        """Store an object; raises `ArchiveDown` or `Rejected`."""
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        response = self._send(
            "POST",
            f"{self._url}/studies",
            content=_in_two(head + content + tail),
            headers={
                "content-type": kind,
                "content-length": str(len(head) + len(content) + len(tail)),
                "accept": _JSON,
            },
        )
        failpoint("send.answered")
        reason = _failure_reason(response)
        if reason == DUPLICATE:
            return
        if reason is not None:
            raise rejected(reason)
        if not response.is_success:
            raise Rejected(
                f"http_{response.status_code}", may_pass=response.status_code not in _NEVER
            )

    def holds(self, what: Stored) -> bool:
        """Ask whether the archive holds an object; raises `ArchiveDown` or `Rejected`."""
        response = self._send(
            "GET",
            f"{self._url}/instances",
            params={"StudyInstanceUID": what.study_uid, "SOPInstanceUID": what.sop_uid},
            headers={"accept": _JSON},
        )
        if response.status_code == httpx.codes.NO_CONTENT:
            return False
        if not response.is_success:
            raise Rejected(f"http_{response.status_code}", may_pass=True)
        found = {_first(item, _SOP_INSTANCE_UID) for item in _objects(response)}
        return what.sop_uid in found

    def rest(self) -> None:
        """Keep the connection: HTTP servers close idle ones by themselves."""

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, url, **options)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise ArchiveDown(type(exc).__name__, nothing_sent=True) from exc
        except (httpx.RequestError, OSError) as exc:
            raise ArchiveDown(type(exc).__name__) from exc
        if response.status_code in _DOWN:
            raise ArchiveDown(f"http_{response.status_code}")
        is_page = response.headers.get("content-type", "").startswith("text/html")
        if response.is_success and is_page:
            raise ArchiveDown("no_dicomweb")  # a log-in or error page of a proxy
        return response


def _in_two(body: bytes) -> Iterator[bytes]:
    middle = len(body) // 2
    yield body[:middle]
    failpoint("send.half_sent")
    yield body[middle:]
    failpoint("send.request_sent")


def _failure_reason(response: httpx.Response) -> int | None:
    """Return why the archive did not store the one object, None if it did or does not say."""
    for item in _objects(response):
        failed = item.get(_FAILED_SOP_SEQUENCE, {}).get("Value") or []
        for entry in failed:
            reason = _first(entry, _FAILURE_REASON)
            return reason if isinstance(reason, int) else 0xC000
    return None


def _objects(response: httpx.Response) -> list[dict[str, Any]]:
    try:
        document = response.json()
    except ValueError:
        return []
    items = document if isinstance(document, list) else [document]
    return [item for item in items if isinstance(item, dict)]


def _first(item: dict[str, Any], tag: str) -> Any:
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]
