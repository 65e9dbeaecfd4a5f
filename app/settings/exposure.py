"""Who can reach the service: its address, its host names, and the API keys that it asks for."""

import ipaddress
import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "CXR_"

KEY_LINE = re.compile(r"([\w.-]{1,64}):([0-9a-fA-F]{64})")
"""An API key's name and the SHA-256 of the key."""


_NAME = re.compile(r"[a-z0-9_.:-]{1,253}")
"""A host name or an address."""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_name(host: str) -> str:
    """Return the name or address in a Host header, without port and brackets, in lower case."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def host_names(text: str) -> list[str]:
    """Return the names of a list that is separated by commas; raise `ValueError` for no name."""
    names = [host_name(entry) for entry in text.split(",") if entry.strip()]
    if not all(name == "*" or _NAME.fullmatch(name) for name in names):
        raise ValueError("CXR_ALLOWED_HOSTS is a list of host names, separated by commas")
    return names


class ExposureSettings(BaseSettings):
    """The settings that decide who can reach the service."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    api_keys: str = Field(
        "",
        repr=False,
        description="API keys that are accepted, as NAME:SHA256, separated by commas.",
    )
    api_keys_file: Path | None = Field(
        None, description="File of such keys, one a line; # begins a comment."
    )
    allowed_hosts: str = Field(
        "",
        description="Host names, separated by commas, to which a service without API keys answers "
        "beside the loopback and CXR_HOST; * allows all.",
    )
    waive_api_key: bool = Field(
        False, description="Listen beyond the loopback without any API key."
    )
    max_calls_per_minute: int = Field(
        600,
        ge=0,
        le=10**6,
        description="Calls that each API key may make, counted by each worker process for itself; "
        "0 sets no limit.",
    )

    def key_lines(self) -> list[str]:
        """Return the lines of all API keys."""
        return _key_lines(self.api_keys) + _file_lines(self.api_keys_file)

    def allowed_host_names(self) -> list[str]:
        """Return the host names of CXR_ALLOWED_HOSTS."""
        return host_names(self.allowed_hosts)

    @model_validator(mode="after")
    def _guard_open_addresses(self) -> Self:
        """Refuse an address that others can reach, unless keys are asked for or waived."""
        keys = self.key_lines()
        for name, found in (
            ("api_keys", _key_lines(self.api_keys)),
            ("api_keys_file", _file_lines(self.api_keys_file)),
        ):
            is_set = name in self.model_fields_set and getattr(self, name) is not None
            if is_set and not found:
                raise ValueError(
                    f"{PREFIX}{name.upper()} is set and holds no key; unset it if none is asked for"
                )
        if not (keys or self.waive_api_key or is_loopback(self.host)):
            raise ValueError(
                "CXR_HOST is reachable by others: set CXR_API_KEYS or CXR_API_KEYS_FILE, or "
                "CXR_WAIVE_API_KEY=true"
            )
        return self

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, text: str) -> str:
        host_names(text)
        return text


def _file_lines(file: Path | None) -> list[str]:
    """Return the lines of the keys in a file; raise `ValueError` if it can't be read."""
    if file is None:
        return []
    try:
        return _key_lines(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as exc:
        raise ValueError("CXR_API_KEYS_FILE can't be read") from exc


def _key_lines(text: str) -> list[str]:
    """Return the lines of keys in a text; raise `ValueError` for others, without quoting them."""
    lines = [line.partition("#")[0].strip() for line in text.replace(",", "\n").splitlines()]
    found = [line for line in lines if line]
    if not all(map(KEY_LINE.fullmatch, found)):
        raise ValueError(
            "an API key's line is NAME:SHA256, as `python -m app.access NAME` writes it"
        )
    return found
