"""Take needless work out of a graph that was exported already; its answers change by rounding
alone.
"""

from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, helper

_WIDE = 7
"""Rows and columns from which a square window costs more than two strips."""


def split_wide_pools(path: Path, lean: Path) -> int:
    """Write a graph whose wide average pools of stride 1 are done by columns, then by rows.

    Where padding does not count, a mean over a rectangle is the mean of its rows' means.

    Returns:
        How many pools were split.
    """
    model = onnx.load(path)
    before = len(model.graph.node)
    nodes = [part for node in model.graph.node for part in _split(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    _save(model, lean)
    return len(nodes) - before


def _split(node: NodeProto) -> list[NodeProto]:
    settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    kernel = settings.get("kernel_shape")
    if node.op_type != "AveragePool" or kernel is None or not _can_be_split(settings):
        return [node]
    rows, columns = kernel
    pads = settings.get("pads", [0, 0, 0, 0])
    between = f"{node.output[0]}_columns"
    return [
        helper.make_node(
            "AveragePool",
            [node.input[0]],
            [between],
            name=f"{node.name}_columns",
            kernel_shape=[rows, 1],
            pads=[pads[0], 0, pads[2], 0],
        ),
        helper.make_node(
            "AveragePool",
            [between],
            list(node.output),
            name=f"{node.name}_rows",
            kernel_shape=[1, columns],
            pads=[0, pads[1], 0, pads[3]],
        ),
    ]


def _can_be_split(settings: dict[str, object]) -> bool:
    kernel = settings["kernel_shape"]
    assert isinstance(kernel, list)
    plain = (
        settings.get("strides", [1, 1]) == [1, 1]
        and settings.get("dilations", [1, 1]) == [1, 1]
        and not settings.get("count_include_pad", 0)
        and not settings.get("ceil_mode", 0)
        and settings.get("auto_pad", b"NOTSET") == b"NOTSET"
    )
    return plain and len(kernel) == 2 and min(kernel) >= _WIDE


def _save(model: ModelProto, path: Path) -> None:
    draft = path.with_suffix(".draft")
    onnx.save(model, draft)
    draft.replace(path)
