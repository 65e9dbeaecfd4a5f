"""From a torch network to one ONNX file that explains itself.

The file takes `image`, uint8 [N, H, W], and gives `logit` [N], `cam` [N, h, w]
and `novelty` [N].  What the exporter notes about the machine it ran on (source
paths, stack traces) is taken out.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch

INPUT_NAME = "image"
OUTPUT_NAMES = ("logit", "cam", "novelty")
MAX_BATCH = 64
OPSET = 20


def trace(network: torch.nn.Module, size: int, path: Path) -> None:
    """Write `network` (already prepared for export) to `path`.

    The example has two images: one would be taken for a constant.
    """
    example_NHW = torch.zeros((2, size, size), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network.eval(),
            (example_NHW,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    _forget_machine(model)
    onnx.save_model(model, path)


def describe(path: Path, properties: Mapping[str, str]) -> None:
    """Write the essentials into a graph file (metadata_props), so that it explains itself alone."""
    model = onnx.load(path)
    model.producer_name, model.producer_version = "cxr-serve", ""
    onnx.helper.set_model_props(model, dict(properties))
    onnx.save_model(model, path)


def _forget_machine(model: onnx.ModelProto) -> None:
    """Take out stack traces, module paths and doc strings: they name folders of this machine."""
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    for entry in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        entry.doc_string = ""
        del entry.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporter's chatter; its errors still come as exceptions."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
