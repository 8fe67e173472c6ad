"""The IR layer: the only importer of onnx, onnx_ir and onnx_graphsurgeon."""

import onnxslim.ir.deferred  # noqa: F401  # pyright: ignore[reportUnusedImport] - goes first
from onnxslim.ir.checksum import checksum
from onnxslim.ir.cut import cut
from onnxslim.ir.declare import declare_types
from onnxslim.ir.edit import Editor
from onnxslim.ir.external import external_tensors
from onnxslim.ir.functions import (
    inline_functions,
    remove_unused_functions,
    remove_unused_imports,
)
from onnxslim.ir.given_shapes import set_input_shapes
from onnxslim.ir.infer import Inferred, infer_types
from onnxslim.ir.infer_node import infer_node
from onnxslim.ir.interop import from_gs, to_gs
from onnxslim.ir.io import (
    Kind,
    ModelLike,
    kind_of,
    load,
    read_unchecked,
    to_bytes,
    to_kind,
    to_proto,
)
from onnxslim.ir.mapped import forget_mapped
from onnxslim.ir.modern import raise_ir_version
from onnxslim.ir.names import fix_names
from onnxslim.ir.opset import opset, raise_opset
from onnxslim.ir.reference import run_reference
from onnxslim.ir.splice import Use
from onnxslim.ir.state import restore, snapshot
from onnxslim.ir.tensors import lazy_tensor, make_tensor
from onnxslim.ir.text import parse_text, to_text
from onnxslim.ir.types import (
    Attr,
    AttributeType,
    DataType,
    ExternalTensor,
    Function,
    Graph,
    LazyTensor,
    Model,
    Node,
    Scope,
    Shape,
    StringTensor,
    SymbolicDim,
    Tensor,
    TensorProtocol,
    TensorType,
    Value,
)
from onnxslim.ir.verify import verify
from onnxslim.ir.walk import (
    Array,
    array,
    attribute,
    constant,
    constant_of,
    graph_of,
    is_fixed,
    label,
    nodes,
    op,
    scope_tree,
    scopes,
    subgraphs,
    tensors,
    weight_bytes,
)
from onnxslim.ir.write import save

__all__ = [
    "Array",
    "Attr",
    "AttributeType",
    "DataType",
    "Editor",
    "ExternalTensor",
    "Function",
    "Graph",
    "Inferred",
    "Kind",
    "LazyTensor",
    "Model",
    "ModelLike",
    "Node",
    "Scope",
    "Shape",
    "StringTensor",
    "SymbolicDim",
    "Tensor",
    "TensorProtocol",
    "TensorType",
    "Use",
    "Value",
    "array",
    "attribute",
    "checksum",
    "constant",
    "constant_of",
    "cut",
    "declare_types",
    "external_tensors",
    "fix_names",
    "forget_mapped",
    "from_gs",
    "graph_of",
    "infer_node",
    "infer_types",
    "inline_functions",
    "is_fixed",
    "kind_of",
    "label",
    "lazy_tensor",
    "load",
    "make_tensor",
    "nodes",
    "op",
    "opset",
    "parse_text",
    "raise_ir_version",
    "raise_opset",
    "read_unchecked",
    "remove_unused_functions",
    "remove_unused_imports",
    "restore",
    "run_reference",
    "save",
    "scope_tree",
    "scopes",
    "set_input_shapes",
    "snapshot",
    "subgraphs",
    "tensors",
    "to_bytes",
    "to_gs",
    "to_kind",
    "to_proto",
    "to_text",
    "verify",
    "weight_bytes",
]
