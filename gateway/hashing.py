"""UIDs and accession numbers as keyed hashes: the site can join them, and nobody else."""

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

_KEY_BYTES = 32
_HEX_DIGITS = 40


class SiteKey:
    """The secret of one site."""

    def __init__(self, key: bytes) -> None:
        """Hash with this key."""
        self._key = key

    @classmethod
    def load(cls, path: Path) -> "SiteKey":
        """Read the key, or make it at the first start; raises `OSError` or `ValueError`."""
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        if len(key) < _KEY_BYTES:
            raise ValueError(f"{path} holds no key of {2 * _KEY_BYTES} hexadecimal digits")
        return cls(key)

    def hash(self, value: str) -> str:
        """Return HMAC-SHA-256 of a text, its first 40 hexadecimal digits."""
        return hmac.digest(self._key, value.strip().encode(), "sha256").hex()[:_HEX_DIGITS]
