"""Radiographs of a DICOMweb server.

They are found by QIDO-RS (PS3.18 section 10.6) and fetched by WADO-RS (section 10.4).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
from python_multipart.multipart import MultipartParser, parse_options_header

from bulk.archive_parts import Item
from bulk.errors import BulkError, SourceUnreadable
from bulk.rows import Row
from bulk.sources.retry import Attempts
from bulk.sources.source import Listing

MODALITIES = ("CR", "DX", "RG")
"""Series of other modalities hold no plain radiographs, and a CT has hundreds of images."""

_PAGE = 200
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_BUSY = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_MULTIPART = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""The transfer syntax as stored: nothing is to be decoded twice."""


@dataclass(frozen=True, slots=True)
class DicomWebSource:
    """All plain radiographs of a server, found from studies down to instances.

    Every server answers this way of searching; a search over all instances at once is optional.
    User and password come from the address or from `~/.netrc`.
    """

    url: str

    def listing(self) -> Listing:
        """List every instance; raises `BulkError`."""
        with _client(self.url) as client:
            try:
                return Listing(tuple(_instances(client)))
            except (SourceUnreadable, ValueError) as exc:
                raise BulkError(f"the DICOMweb server can't be searched: {exc}") from exc

    def reader(self) -> "DicomWebReader":
        """Open a connection that is kept for all files."""
        return DicomWebReader(_client(self.url))

    def name(self, row: Row) -> Row:
        """Fill in the three UIDs, which are the file's path."""
        study, series, instance = row.path.split("/")
        return replace(row, study_uid=study, series_uid=series, instance_uid=instance)


class DicomWebReader:
    """Fetches instances over one connection."""

    def __init__(self, client: httpx.Client) -> None:
        """Take a connection, which `close` closes."""
        self._client = client
        self._attempt = Attempts(_is_final)

    def read(self, item: Item, max_bytes: int) -> bytes:
        """Return an instance as it is stored; raises `SourceUnreadable`."""
        study, series, instance = item.path.split("/")
        path = f"studies/{study}/series/{series}/instances/{instance}"
        return self._attempt(lambda: self._fetch(path, max_bytes))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _fetch(self, path: str, max_bytes: int) -> bytes:
        body = bytearray()
        with self._client.stream("GET", path, headers={"accept": _MULTIPART}) as response:
            response.raise_for_status()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > max_bytes + 2**16:
                    return bytes(max_bytes + 1)  # zeros of this length are refused as too large
            return _first_part(response.headers.get("content-type", ""), bytes(body))


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url.rstrip("/") + "/", timeout=_TIMEOUT, follow_redirects=True)


def _instances(client: httpx.Client) -> Iterator[Item]:
    for study in _pages(client, "studies", {}):
        study_uid = _value(study, _STUDY)
        for modality in MODALITIES:
            wanted = {"Modality": modality}
            for series in _pages(client, f"studies/{study_uid}/series", wanted):
                series_uid = _value(series, _SERIES)
                path = f"studies/{study_uid}/series/{series_uid}/instances"
                for instance in _pages(client, path, {}):
                    # An instance never changes: another content has another UID.
                    yield Item(f"{study_uid}/{series_uid}/{_value(instance, _INSTANCE)}", "")


def _pages(
    client: httpx.Client, path: str, query: Mapping[str, str]
) -> Iterator[Mapping[str, Any]]:
    """Yield the matches of a search, page by page; raises `SourceUnreadable`."""
    attempt = Attempts(_is_final)
    before: list[Mapping[str, Any]] = []
    offset = 0
    while True:
        page = attempt(lambda: _page(client, path, query, offset))  # noqa: B023
        if not isinstance(page, list):
            raise SourceUnreadable("the answer to a search is no list of matches")
        yield from page
        if len(page) < _PAGE or page == before:  # a server may not know `offset`
            return
        before = page
        offset += len(page)


def _page(client: httpx.Client, path: str, query: Mapping[str, str], offset: int) -> Any:
    params = {**query, "limit": str(_PAGE), "offset": str(offset)}
    response = client.get(path, params=params, headers={"accept": "application/dicom+json"})
    response.raise_for_status()
    return response.json() if response.status_code != httpx.codes.NO_CONTENT else []


def _value(match: Mapping[str, Any], tag: str) -> str:
    """Return an attribute's first value; raises `ValueError` if there is none."""
    try:
        return str(match[tag]["Value"][0])
    except (KeyError, IndexError, TypeError) as exc:
        raise ValueError(f"a match has no value of ({tag[:4]},{tag[4:]})") from exc


def _first_part(content_type: str, body: bytes) -> bytes:
    """Return a multipart body's first part (RFC 2046); raises `ValueError` if there is none."""
    _, options = parse_options_header(content_type)
    content = bytearray()
    num_ended = 0

    def take(data: bytes, start: int, end: int) -> None:
        if num_ended == 0:
            content.extend(memoryview(data)[start:end])

    def end_part() -> None:
        nonlocal num_ended
        num_ended += 1

    parser = MultipartParser(
        options.get(b"boundary", b""), {"on_part_data": take, "on_part_end": end_part}
    )
    parser.write(body)
    if not num_ended:
        raise ValueError("the server sent no whole part")
    return bytes(content)


def _is_final(error: Exception) -> bool:
    if not isinstance(error, httpx.HTTPStatusError):
        return False
    return error.response.status_code < 500 and error.response.status_code not in _BUSY
