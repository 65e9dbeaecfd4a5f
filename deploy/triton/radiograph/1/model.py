"""A Triton model (Python backend) that takes an encoded radiograph, as `/predict` does.

It decodes, makes the input, runs the bundle's graph and interprets it through `cxr`, which must be
importable by Triton's Python: see docs/triton.md. An upload that can't be answered is an error
whose message begins with the code that the service would give.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from cxr.bundle import read_bundle
from cxr.decode import DecodeLimits, quiet_libraries
from cxr.decode_and_preprocess import Preparation, Prepared, prepare
from cxr.errors import ImageError
from cxr.graph import Runtime, open_graph
from cxr.interpret import interpret
from cxr.metadata_features import encode_metadata_features


class TritonPythonModel:
    """One instance: one graph with one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle that config.pbtxt names, and prove it on its golden images."""
        quiet_libraries()
        parameters = json.loads(args["model_config"])["parameters"]
        self._bundle = read_bundle(Path(parameters["bundle"]["string_value"]))
        self._graph = open_graph(self._bundle, Runtime(threads=1))
        self._preparation = Preparation(
            self._bundle.manifest.preprocess, DecodeLimits(), scope="refuse"
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; one that can't be answered fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        (data,) = triton.get_input_tensor_by_name(request, "file").as_numpy()
        try:
            prepared = prepare(data, self._preparation)
        except ImageError as error:
            failed = triton.TritonError(f"{error.code}: {error}")
            return triton.InferenceResponse(output_tensors=[], error=failed)
        finding = interpret(
            self._graph.run(prepared.image_HW[None], self._metadata(prepared)),
            self._bundle.manifest,
        )
        outputs = {
            "probability": np.array([finding.probability], np.float32),
            "label": np.array([finding.label.encode()], np.object_),
            "logit": np.array([finding.logit], np.float32),
        }
        return triton.InferenceResponse(
            output_tensors=[triton.Tensor(name, value) for name, value in outputs.items()]
        )

    def _metadata(self, prepared: Prepared) -> Any:
        known = self._bundle.manifest.metadata
        return encode_metadata_features([prepared.metadata]) if known else None
