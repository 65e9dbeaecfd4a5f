"""Where the files of an archive lie: a folder, a list, an object store, a DICOMweb server."""

import os

from bulk.sources.dicomweb import DicomWebSource
from bulk.sources.files import ListSource, StoreSource
from bulk.sources.local_files import FolderSource, local_path
from bulk.sources.source import ArchiveSource, Listing, Reader

__all__ = ["ArchiveSource", "FolderSource", "Listing", "Reader", "open_source"]


def open_source(text: str) -> ArchiveSource:
    """Return the source that a command names.

    `http://` and `https://` name a DICOMweb server, other URLs what fsspec opens. A path names a
    folder or a file, or if it ends in `.txt` a list of files, one a line.
    """
    if text.startswith(("http://", "https://")):
        return DicomWebSource(text)
    path = local_path(os.fsencode(text).decode(errors="surrogateescape"))
    if path is None:
        return StoreSource(text)
    if path.suffix == ".txt" and not path.is_dir():
        return ListSource(path)
    return FolderSource(path)
