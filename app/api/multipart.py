"""A multipart body taken apart while it streams in, and the files that it holds."""

from dataclasses import dataclass, field
from io import BytesIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import MalformedRequest
from cxr.errors import EmptyFile, TooLarge

MAX_PREAMBLE_BYTES = 16 * 1024
"""Bytes before the first boundary; MIME libraries write a line."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Limits of one body."""

    max_file_bytes: int
    max_body_bytes: int
    max_files: int
    timeout_s: float


@dataclass(slots=True)
class UploadedFile:
    """One file of a body; `filename` is the client's own text."""

    filename: str | None
    max_bytes: int
    _content: BytesIO = field(
        default_factory=BytesIO, init=False
    )  # grows in place; reading it makes no further copy
    _num_bytes: int = field(default=0, init=False)

    def add(self, piece: bytes | memoryview) -> None:
        """Append bytes. Nothing of a file that is too large is kept."""
        self._num_bytes += len(piece)
        if self._num_bytes > self.max_bytes:
            self._content = BytesIO()
        else:
            self._content.write(piece)

    def read(self) -> bytes:
        """Return the whole file; raise `TooLarge` or `EmptyFile`."""
        if self._num_bytes > self.max_bytes:
            raise TooLarge("The file has more bytes than are taken.")
        if not self._num_bytes:
            raise EmptyFile
        return self._content.getvalue()


class MultipartFiles:
    """Collect the files of one multipart body; python-multipart parses it."""

    def __init__(self, boundary: bytes, name: str, limits: UploadLimits) -> None:
        if not boundary:
            raise MalformedRequest("The multipart body has no boundary.")
        self._name = name
        self._limits = limits
        self._files: list[UploadedFile] = []
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._is_complete = False
        self._delimiter = b"--" + boundary
        self._preamble: bytearray | None = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as exc:
            raise MalformedRequest("The multipart boundary is too long.") from exc

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body; raise `MalformedRequest`."""
        if self._preamble is not None:
            chunk = self._behind_preamble(self._preamble, chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as exc:
            raise MalformedRequest("The multipart body is broken.") from exc

    def _behind_preamble(self, preamble: bytearray, chunk: bytes) -> bytes:
        """Return what is known of the body from its first boundary on.

        Text before the first boundary is to be ignored (RFC 2046, 5.1.1).
        """
        if not preamble and chunk.startswith(self._delimiter):  # as most clients send it
            self._preamble = None
            return chunk
        preamble += chunk
        if preamble.startswith(self._delimiter):
            start = 0
        else:
            start = preamble.find(b"\n" + self._delimiter) + 1
            if not start:
                if len(preamble) > MAX_PREAMBLE_BYTES:
                    raise MalformedRequest("The multipart body has no boundary within its start.")
                return b""
        self._preamble = None
        return bytes(memoryview(preamble)[start:])

    def finish(self) -> list[UploadedFile]:
        """Return the files; raise `MalformedRequest` if the body ended too early."""
        if not self._is_complete:
            raise MalformedRequest("The multipart body has no end.")
        return self._files

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != self._name.encode():
            raise MalformedRequest(
                f"A part is not named {self._name}. Parameters belong into the query, not into "
                f"the form."
            )
        if len(self._files) == self._limits.max_files:
            raise MalformedRequest(self._too_many())
        filename = options.get(b"filename")
        name = filename.decode("utf-8", "replace") if filename is not None else None
        self._files.append(UploadedFile(name, self._limits.max_file_bytes))

    def _too_many(self) -> str:
        if self._limits.max_files == 1:
            return "Send one file; several go to /predict/batch as parts named files."
        return f"Send at most {self._limits.max_files} files."

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._files[-1].add(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self._is_complete = True
