"""The settings of the service: one frozen object, read from `CXR_*` environment variables.

Facts of a model (input size, thresholds, scope) are never settings. They are in its bundle.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from app.cpu import usable_cores
from app.settings.exposure import PREFIX, ExposureSettings
from cxr.decode import DecodeLimits
from cxr.graph.runtime import Engine, Precision
from cxr.manifest import Slug

MEBIBYTE = 2**20

Seconds = Annotated[float, Field(gt=0, le=3600)]


class SettingsError(Exception):
    """The environment holds no valid settings. The message names every fault."""


class Settings(ExposureSettings):
    """The service's settings; field `port` is read from `CXR_PORT`, and so on."""

    store: Path = Field(
        Path("model_store"), description="Folder of model bundles: <model>/<version>/bundle.json."
    )
    store_poll_seconds: float = Field(
        5.0, ge=0, le=3600,
        description="How often the store is looked at for new, changed and removed versions; 0 "
                    "looks only at the start.",
    )  # fmt: skip
    open_seconds: Seconds = Field(
        60.0,
        description="How long one version may take to open before it is refused.",
    )
    default_model: Slug = Field(
        "pneumothorax", description="The model that answers if a request names none."
    )
    operating_point: str = Field(
        "",
        max_length=64,
        description="Operating point of requests that name none; empty takes each model's own.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        1, ge=1, le=64,
        description="Worker processes that serve on the one port. Decoders, run slots and queues "
                    "are divided among them.",
    )  # fmt: skip
    device: Literal["cpu", "gpu"] = Field("cpu", description="Where the graphs run.")
    device_process: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether one process of its own runs the graphs for all workers; auto is on "
        "for a GPU with several workers. Only Linux has it.",
    )
    scope: Literal["refuse", "warn"] = Field(
        "refuse",
        description="What to do if the header says another body part or a lateral view.",
    )

    max_upload_bytes: int = Field(
        64 * MEBIBYTE, ge=1024, le=2**31, description="Largest file that is taken."
    )
    max_pixels: int = Field(
        64_000_000, ge=4096, le=2**31, description="Largest image that is decoded, in pixels."
    )
    max_inflated_bytes: int = Field(
        128 * MEBIBYTE,
        ge=1024,
        le=2**33,
        description="Largest size that a deflated file may grow to.",
    )
    max_batch_files: int = Field(
        16, ge=1, le=256, description="Most files in one request to /predict/batch."
    )
    max_batch_bytes: int = Field(
        256 * MEBIBYTE, ge=1024, le=2**33, description="Largest body of /predict/batch."
    )
    max_uploads_bytes: int = Field(
        512 * MEBIBYTE,
        ge=1024,
        le=2**40,
        description="Most bytes of uploads that are held at once, over all requests.",
    )
    receive_timeout_seconds: Seconds = Field(
        30.0, description="How long a body may take to arrive."
    )

    decode_threads: int = Field(
        default_factory=usable_cores, ge=1, le=64, description="Files decoded in threads at once."
    )
    decode_workers: int = Field(
        default_factory=lambda: (usable_cores() + 1) // 2,
        ge=1, le=64, description="Processes for codecs that must be stoppable.",
    )  # fmt: skip
    decode_seconds: Seconds = Field(
        10.0, description="How long a worker process may decode one file."
    )
    decode_memory_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=64 * MEBIBYTE,
        le=2**36,
        description="Memory that a worker process may take for one file.",
    )

    queue_capacity: int = Field(
        128,
        ge=1,
        le=65536,
        description="Images in work or waiting, for each model; a TTA view counts.",
    )
    max_batch: int = Field(
        0, ge=0, le=64, description="Most images in one run of a graph; 0 measures what is best."
    )
    engine_lanes: int = Field(
        0,
        ge=0,
        le=64,
        description="Batches that run at once, for each model; 0 measures what is best.",
    )
    engine_threads: int = Field(
        0, ge=0, le=256, description="Threads of one run on the CPU; 0 measures what is best."
    )
    engine: Engine = Field(
        "onnxruntime",
        description="What runs the graphs; openvino needs its extra and a CPU.",
    )
    precision: Precision = Field(
        "exact",
        description="exact is fp32, the same answer everywhere; fast serves only bundles that "
        "were measured for it.",
    )
    gpu_memory_bytes: int = Field(
        4096 * MEBIBYTE,
        ge=256 * MEBIBYTE,
        le=2**40,
        description="Most memory that one model takes on the GPU.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/cxr-serve"),
        description="Folder for what was measured of this machine; need not be writable.",
    )
    default_timeout_seconds: Seconds = Field(
        30.0, description="Deadline of a request that sets none by x-request-timeout-seconds."
    )
    overload_status: Literal["503", "429"] = Field(
        "503",
        description="Status of a refusal for too much load; 429 for proxies that take a backend "
        "out of service after a 503.",
    )
    drain_seconds: float = Field(
        5.0,
        ge=0,
        le=600,
        description="How long new requests are answered 503 after SIGTERM, before the port closes.",
    )
    header_timeout_seconds: Seconds = Field(
        10.0, description="How long a request's headers may take to arrive."
    )
    send_timeout_seconds: Seconds = Field(
        10.0, description="How long a client may leave an answer unread before it is cut off."
    )
    max_connections: int = Field(
        1000, ge=8, le=10**6,
        description="Connections that may be open. File descriptors may allow fewer.",
    )  # fmt: skip
    max_answers_bytes: int = Field(
        256 * MEBIBYTE,
        ge=MEBIBYTE,
        le=2**40,
        description="Most bytes of large answers that wait to be read, over all requests.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line to write."
    )

    @property
    def has_device_process(self) -> bool:
        """Tell whether a process of its own runs the graphs."""
        if self.device_process == "auto":
            return self.device == "gpu" and self.workers > 1 and _is_linux()
        return self.device_process == "on"

    @property
    def decode_limits(self) -> DecodeLimits:
        """Return the limits for decoding one upload."""
        return DecodeLimits(
            max_bytes=self.max_upload_bytes,
            max_pixels=self.max_pixels,
            max_inflated_bytes=self.max_inflated_bytes,
        )

    def share(self) -> Self:
        """Return the settings of one worker process: limits that hold for all are divided."""
        names = (
            "decode_threads",
            "decode_workers",
            "engine_lanes",
            "queue_capacity",
            "max_connections",
        )
        whole = {name: getattr(self, name) for name in names}
        return self.model_copy(
            update={name: max(1, value // self.workers) for name, value in whole.items() if value}
        )

    @field_validator("cache_dir")
    @classmethod
    def _at_home(cls, path: Path) -> Path:
        """Replace ~ by the user's home."""
        try:
            return path.expanduser()
        except RuntimeError:  # a user without a home, as in some containers
            return Path(tempfile.gettempdir()) / f"cxr-serve-{os.getuid()}"

    @model_validator(mode="after")
    def _guard_engine(self) -> Self:
        """Refuse an engine that does not run on the device."""
        if (self.engine, self.device) == ("openvino", "gpu"):
            raise ValueError(f"CXR_ENGINE={self.engine} does not run on CXR_DEVICE={self.device}")
        return self

    @model_validator(mode="after")
    def _guard_device_process(self) -> Self:
        """Refuse a device process on a system that lacks what it needs."""
        if self.device_process == "on" and not _is_linux():
            raise ValueError("CXR_DEVICE_PROCESS=on needs Linux: set it to auto or off")
        return self

    @model_validator(mode="after")
    def _leave_room_for_one(self) -> Self:
        """Refuse limits under which the largest allowed body would never be taken."""
        if self.max_uploads_bytes < max(self.max_upload_bytes, self.max_batch_bytes):
            raise ValueError(
                "CXR_MAX_UPLOADS_BYTES holds neither one file nor one batch: set it above both "
                "limits"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _know_all_variables(cls, data: Any) -> Any:
        """Refuse unknown `CXR_*` variables. pydantic-settings would ignore a misspelt one."""
        unknown = unknown_variables(os.environ)
        if unknown:
            known = ", ".join(sorted(variable_names()))
            raise ValueError(f"unknown variable {', '.join(unknown)}. Known are: {known}")
        return data

    @classmethod
    def read(cls) -> Self:
        """Read the environment; raises `SettingsError` with one line for each fault."""
        try:
            return cls()
        except ValidationError as exc:
            raise SettingsError("\n".join(_faults(exc))) from exc


def _is_linux() -> bool:
    return sys.platform == "linux"


def variable_names() -> dict[str, str]:
    """Map each environment variable to its field's name."""
    return {f"{PREFIX}{name}".upper(): name for name in Settings.model_fields}


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that have the prefix and that no field reads."""
    known = variable_names()
    return sorted(
        name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known
    )


def _faults(error: ValidationError) -> list[str]:
    return [
        f"{_variable(fault['loc'])}{fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    ]


def _variable(location: tuple[int | str, ...]) -> str:
    return f"{PREFIX}{str(location[0]).upper()}: " if location else ""
