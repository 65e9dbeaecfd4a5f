"""Values that need a second look: texts in character sets that nobody stated, lists of numbers."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pydicom.dataset import Dataset

from cxr.dicom.header import MAX_TEXT_BYTES, element, text, words

MAX_LIST_BYTES = 2**17
"""Longest list of numbers that is read: a polygon of 4096 corners, each number of 12 digits and a
backslash, is shorter."""


def possible_words(dataset: Dataset, keyword: str) -> list[str]:
    """Return a text in the file's character set, and in others that it might be in.

    Stations write letters beyond ASCII without stating a character set, or state a wrong one.
    """
    found = [words(dataset, keyword), text(dataset, keyword)]
    try:
        raw: Any = element(dataset, keyword).value
    except Exception:
        return found
    if isinstance(raw, bytes) and not raw.isascii():
        for encoding in ("utf-8", "gb18030", "shift_jis", "euc_kr", "cp1251"):
            with suppress(UnicodeDecodeError):
                found.append(raw[:MAX_TEXT_BYTES].decode(encoding).strip(" \0\t\r\n"))
    return list(dict.fromkeys(found))


def numbers(dataset: Dataset, keyword: str, count: int | None) -> list[int]:
    """Return the whole numbers of an integer string, `count` of them or as many as there are.

    Raises:
        ValueError: a value is no number, their count is another, or the list is too long.
    """
    raw = getattr(element(dataset, keyword), "value", None)
    if raw is None:
        raise ValueError(keyword)
    if isinstance(raw, bytes):
        if len(raw) > MAX_LIST_BYTES:
            raise ValueError(keyword)
        values: list[Any] = raw.decode("ascii").strip(" \0").split("\\")
    else:
        values = list(raw) if isinstance(raw, Iterable) and not isinstance(raw, str) else [raw]
    found = [round(float(value)) for value in values]
    if count is not None and len(found) != count:
        raise ValueError(keyword)
    return found
