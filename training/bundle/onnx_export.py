"""Export a torch network to one ONNX file with its essentials as metadata.

The file takes `image`, uint8 [N, H, W], and gives `logit` [N], `cam` [N, h, w] and `novelty` [N].
If the network reads age, sex and view, the file also takes `metadata`, float32 [N, M], and gives
`bias` [N].  Source paths and stack traces of the exporting machine are removed.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import torch

INTERFACES = (
    (("image",), ("logit", "cam", "novelty")),
    (("image", "metadata"), ("logit", "cam", "novelty", "bias")),
)
"""Names of inputs and outputs: of graphs that read the image alone, and of those that read
metadata."""
_DRAFT = "_draft"
"""Ends the names of outputs until those of the weights are known."""

MAX_BATCH = 64
OPSET = 20


def trace(network: torch.nn.Module, size: int, path: Path, *, num_facts: int = 0) -> None:
    """Write `network` (already prepared for export) to `path`.

    `num_facts` is the number of metadata columns. The example has two images, because the exporter
    would take a batch of one for a constant.
    """
    examples: tuple[torch.Tensor, ...] = (torch.zeros((2, size, size), dtype=torch.uint8),)
    if num_facts:
        examples = (*examples, torch.zeros((2, num_facts)))
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    inputs, outputs = INTERFACES[len(examples) - 1]
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network.eval(),
            examples,
            dynamo=True,
            dynamic_shapes=tuple({0: batch} for _ in examples),
            input_names=list(inputs),
            output_names=[name + _DRAFT for name in outputs],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    _name_outputs(model, outputs)
    _forget_machine(model)
    onnx.save_model(model, path)


def describe(path: Path, properties: Mapping[str, str]) -> None:
    """Write the essentials into a graph file (metadata_props), so that it explains itself alone."""
    model = onnx.load(path)
    model.producer_name, model.producer_version = "cxr-serve", ""
    onnx.helper.set_model_props(model, dict(properties))
    onnx.save_model(model, path)


def _name_outputs(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Name the outputs. A weight with the same name, such as the head's bias, is renamed."""
    names = {name: f"head_{name}" for name in outputs} | {name + _DRAFT: name for name in outputs}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for entry in (*model.graph.initializer, *model.graph.value_info, *model.graph.output):
        entry.name = names.get(entry.name, entry.name)


def _forget_machine(model: onnx.ModelProto) -> None:
    """Remove stack traces, module paths and doc strings: they name folders of this machine."""
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
    """Suppress the exporter's output. Its errors are still raised."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
