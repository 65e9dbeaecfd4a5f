"""Where the files of an archive lie: a folder, a list, an object store, a DICOMweb server."""

from bulk.sources.dicomweb import DicomWebSource
from bulk.sources.files import FileSource, ListSource
from bulk.sources.source import ArchiveSource, Reader

__all__ = ["ArchiveSource", "Reader", "open_source"]


def open_source(text: str) -> ArchiveSource:
    """Return the source that a command names.

    `http://` and `https://` name a DICOMweb server, a local file that ends in `.txt` is a list of
    files, one a line, and everything else is a folder or a file as fsspec reads it.

    Raises:
        BulkError: fsspec lacks what this kind of address needs, or there is nothing.
    """
    if text.startswith(("http://", "https://")):
        return DicomWebSource(text)
    if text.endswith(".txt"):
        return ListSource(text)
    return FileSource(text)
