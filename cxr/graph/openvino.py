"""A graph in OpenVINO's runtime on the CPU: the same file, in fp32 or in bf16.

Shape suffixes: N images, H and W input rows and columns, h and w map rows and columns, M columns of
metadata.
"""

import sys
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.errors import BundleError, GraphError
from cxr.graph.external_data import check_no_external_data
from cxr.graph.map_part import divide
from cxr.graph.runtime import Runtime
from cxr.interpret import Outputs, no_map

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoGraph:
    """A `model.onnx` in OpenVINO; `run` may be called from several threads at once."""

    def __init__(self, model: Path | bytes, runtime: Runtime, *, precision: str = "fp32") -> None:
        """Open a model in a file or in memory, with `run_slots` streams; raise `BundleError`."""
        openvino = _import_openvino()
        data = model if isinstance(model, bytes) else model.read_bytes()
        check_no_external_data(data)
        if runtime.device != "cpu":
            raise BundleError(
                "OpenVINO serves on the CPU alone; set the device to cpu, or another engine"
            )
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise BundleError("this processor has no bf16 instructions; set the precision to exact")
        try:
            compiled = [
                core.compile_model(
                    core.read_model(BytesIO(part)), "CPU", _properties(runtime, precision)
                )
                for part in divide(data) or (data,)
            ]
        except RuntimeError as exc:
            raise BundleError("the graph does not open in OpenVINO") from exc
        self.engine = runtime.name
        self.precision = precision
        second = [port for port in compiled[0].inputs if "metadata" in port.names]
        self.num_facts = int(second[0].partial_shape[1].get_length()) if second else 0
        self._idle: SimpleQueue[list[Any]] = SimpleQueue()
        for _ in range(runtime.run_slots):
            self._idle.put([part.create_infer_request() for part in compiled])

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        """Answer a batch, uint8 [N, H, W], in order; raises `GraphError`."""
        image = np.ascontiguousarray(batch_NHW)
        requests = self._idle.get()
        try:
            arrays = _infer(
                requests[0], {"image": image, **self._beside(len(batch_NHW), metadata_NM)}
            )
            for request in requests[1:] if with_map else ():
                arrays |= _infer(request, {"image": image, "logit": arrays["logit"]})
        except RuntimeError as exc:
            raise GraphError("OpenVINO could not run the batch") from exc
        finally:
            self._idle.put(requests)
        cam_Nhw = arrays["cam"] if with_map else no_map(len(batch_NHW))
        return Outputs(arrays["logit"], cam_Nhw, arrays["novelty"], arrays.get("bias"))

    def _beside(
        self, count: int, metadata_NM: NDArray[np.float32] | None
    ) -> dict[str, NDArray[np.float32]]:
        """Return the second input if the graph has one."""
        if not self.num_facts:
            return {}
        unknown_NM = np.zeros((count, self.num_facts), np.float32)
        return {
            "metadata": unknown_NM if metadata_NM is None else np.ascontiguousarray(metadata_NM)
        }


def _infer(request: Any, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Run a part of the model, and return its outputs by name."""
    request.infer(inputs)
    # The outputs' memory is used again by the next run.
    return {
        port.any_name: np.array(request.get_tensor(port).data) for port in request.model_outputs
    }


def _properties(runtime: Runtime, precision: str) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": runtime.run_slots,
        "INFERENCE_NUM_THREADS": runtime.run_slots * runtime.threads,
        "ENABLE_CPU_PINNING": False,  # a container's cores are not ours to bind
    }


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports every import to its maker; raises
    `BundleError`.
    """
    # Its own code takes the package as missing then, and reports nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino  # noqa: PLC0415 -- an extra, and slow to import
    except ImportError as exc:
        raise BundleError(
            "OpenVINO is not installed; install the openvino extra, or set the engine to "
            "onnxruntime"
        ) from exc
    return openvino
