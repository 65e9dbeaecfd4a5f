"""JSON messages about opening a model version in the device process: the wish, the answer."""

import hashlib

from pydantic import BaseModel, ConfigDict, TypeAdapter

from app.models.execution_plan import ExecutionPlan
from cxr.bundle import Bundle


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WantedVersion(_Closed):
    """A version of the store, by what its bundle.json says."""

    model: str
    version: int
    manifest_sha256: str
    """Both processes must read the same bundle.json, which holds the hashes of the other files."""

    @classmethod
    def of(cls, bundle: Bundle) -> "WantedVersion":
        """Return what to ask for so that a bundle's own graph answers."""
        manifest = bundle.manifest
        text = manifest.model_dump_json()
        digest = hashlib.sha256(text.encode()).hexdigest()
        return cls(model=manifest.model, version=manifest.version, manifest_sha256=digest)


class OpenedVersion(_Closed):
    """How the device process runs a version, or why it refuses it."""

    refusal: str = ""
    engine: str = ""
    precision: str = ""
    num_facts: int = 0
    plan: ExecutionPlan | None = None


OPENED: TypeAdapter[OpenedVersion] = TypeAdapter(OpenedVersion)
