"""Export of a trained net to ONNX, its score with ONNX Runtime and its entry in the record."""

from __future__ import annotations

import hashlib
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import nn

__all__ = ["describe", "export", "record", "top1"]

HEADER = """\
# Written by models/make_fashion.py: the nets trained on Fashion-MNIST.
# An input is (pixel / 255 - 0.2860) / 0.3530; top1 is the score on the 10,000 test images.
"""


def export(net: nn.Module, path: Path) -> None:
    """Write ``net`` as ONNX, opset 17, batch axis "N".

    TrainingMode.PRESERVE on a net in evaluation mode keeps BatchNormalization as nodes;
    TrainingMode.EVAL would fold it into the convolutions.
    """
    net.eval()
    torch.onnx.export(
        net,
        (torch.zeros(1, 1, 28, 28),),
        path,
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
    )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def top1(path: Path, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Share of the images that the model puts in their class, with ONNX Runtime on the CPU."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    hits = 0
    for start in range(0, len(labels), 500):
        logits = session.run(["logits"], {"input": images[start : start + 500]})[0]
        hits += int((np.asarray(logits).argmax(1) == labels[start : start + 500]).sum())
    return hits / len(labels)


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shape of each value for a batch of one."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def describe(path: Path) -> dict[str, Any]:
    """sha256, bytes, parameters (all stored floats) and MACs of Conv, Gemm and MatMul."""
    model = onnx.load(path)
    parameters = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    shapes = shapes_of(model)
    macs = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            macs += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            macs += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    size = path.stat().st_size
    return {"sha256": digest, "bytes": size, "parameters": parameters, "macs": macs}


def toml_line(key: str, value: str | int | float | bool) -> str:
    """One ``key = value`` line."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {text}"


def record(path: Path, table: str, entry: dict[str, Any]) -> None:
    """Set one table of the TOML file ``path`` and keep the others."""
    tables = tomllib.loads(path.read_text()) if path.exists() else {}
    tables[table] = entry
    parts = [HEADER]
    for name in sorted(tables):
        lines = [toml_line(key, value) for key, value in tables[name].items()]
        parts.append("\n".join([f"[{name}]", *lines, ""]))
    path.write_text("\n".join(parts))
