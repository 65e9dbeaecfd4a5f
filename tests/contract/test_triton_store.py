"""The store is a Triton model repository: Triton's own schema reads what the export wrote."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import tritonclient
from google.protobuf import text_format

STORE = Path(__file__).parents[2] / "model_store"
CONFIGS = sorted(STORE.glob("*/config.pbtxt"))


def triton_schema() -> ModuleType:
    """Triton's `model_config.proto`, compiled, loaded without its package, which imports gRPC."""
    path = Path(tritonclient.__path__[0]) / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CONFIGS, ids=[path.parent.name for path in CONFIGS])
def test_triton_reads_the_configuration(path: Path) -> None:
    config = text_format.Parse(path.read_text(), triton_schema().ModelConfig())

    assert config.name == path.parent.name
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == 64
    assert config.HasField("dynamic_batching")


def test_every_model_has_a_configuration() -> None:
    assert {path.parent for path in CONFIGS} == {path for path in STORE.iterdir() if path.is_dir()}
