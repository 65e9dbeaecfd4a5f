"""What the Open Inference Protocol (KServe v2, REST) tells of the server and of its models."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from cxr.manifest import Manifest

INPUT = "file"
Datatype = Literal["BYTES", "FP32"]


class Tensor(BaseModel):
    """What a model's input or output is, as metadata tells it."""

    model_config = ConfigDict(frozen=True)

    name: str
    datatype: Datatype
    shape: list[int]


INPUTS = [Tensor(name=INPUT, datatype="BYTES", shape=[1])]
OUTPUTS = [
    Tensor(name="probability", datatype="FP32", shape=[1]),
    Tensor(name="label", datatype="BYTES", shape=[1]),
    Tensor(name="logit", datatype="FP32", shape=[1]),
    Tensor(name="answer", datatype="BYTES", shape=[1]),
]


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str = "cxr-serve"
    version: str
    extensions: list[str] = ["binary_tensor_data"]


class Live(BaseModel):
    """The process is sound."""

    live: bool = True


class Ready(BaseModel):
    """The default model answers."""

    ready: bool = True


class ModelReady(BaseModel):
    """The model answers."""

    name: str
    ready: bool = True


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str = "onnxruntime_onnx"
    inputs: list[Tensor]
    outputs: list[Tensor]

    @classmethod
    def write(cls, manifest: Manifest) -> Self:
        """Describe the version that answers."""
        return cls(
            name=manifest.model, versions=[str(manifest.version)], inputs=INPUTS, outputs=OUTPUTS
        )


class ErrorAnswer(BaseModel):
    """How the protocol tells an error."""

    error: str = Field(description="The code of our problem documents, and a sentence.")
