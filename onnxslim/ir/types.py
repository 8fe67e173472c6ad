"""The names of onnx-ir that the project uses. Every other module takes them from `onnxslim.ir`."""

from __future__ import annotations

from onnx_ir import (
    Attr,
    AttributeType,
    DataType,
    ExternalTensor,
    Function,
    Graph,
    LazyTensor,
    Model,
    Node,
    Shape,
    StringTensor,
    SymbolicDim,
    Tensor,
    TensorProtocol,
    TensorType,
    Value,
)

Scope = Graph | Function
"""What owns nodes: the main graph, a subgraph of an If, Loop or Scan, or a function."""

__all__ = [
    "Attr",
    "AttributeType",
    "DataType",
    "ExternalTensor",
    "Function",
    "Graph",
    "LazyTensor",
    "Model",
    "Node",
    "Scope",
    "Shape",
    "StringTensor",
    "SymbolicDim",
    "Tensor",
    "TensorProtocol",
    "TensorType",
    "Value",
]
