"""Export of a trained net to ONNX and its score with ONNX Runtime."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import nn

__all__ = ["describe", "export", "top1"]


def export(net: nn.Module, path: Path) -> None:
    """Write ``net`` as ONNX, opset 17, batch axis "N".

    TrainingMode.PRESERVE on a net in evaluation mode keeps BatchNormalization as nodes;
    TrainingMode.EVAL would fold it into the convolutions.
    """
    net.eval()
    net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    has_norm = any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    modes = torch.onnx.TrainingMode
    torch.onnx.export(
        net,
        (torch.zeros(1, 1, 28, 28),),
        path,
        dynamo=False,
        opset_version=17,
        training=modes.PRESERVE if has_norm else modes.EVAL,
        do_constant_folding=not has_norm,
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
