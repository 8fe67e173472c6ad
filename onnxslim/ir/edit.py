"""The only way to change a graph. Every edit checks everything first, then changes everything.

An edit that cannot be done raises `EditError` with the reason and leaves the model as it was.
Build one `Editor` per pass: it reads the names of the model once, so that edits stay linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Input
from onnx_ir.convenience import convert_attributes

from onnxslim.errors import EditError
from onnxslim.ir.types import Function, Graph, Model, Node, Scope, Tensor, TensorProtocol, Value
from onnxslim.ir.walk import Array, scopes

Use = tuple[Node, int]
"""A place where a value is read: the node and the index of its input."""


class Editor:
    """Edits one model. Names that it makes are unique over all scopes of the model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._taken = _all_names(model)

    def name(self, hint: str) -> str:
        """A name that nothing in the model has: the hint itself, or the hint with a number."""
        name, number = hint, 1
        while name in self._taken:
            name, number = f"{hint}_{number}", number + 1
        self._taken.add(name)
        return name

    def initializer(self, scope: Scope, hint: str, content: Array | TensorProtocol) -> Value:
        """A new constant in a scope: an initializer, or in a function a Constant node."""
        name = self.name(hint)
        tensor = Tensor(np.ascontiguousarray(content), name=name) if isinstance(content, np.ndarray) else content
        if isinstance(scope, Function):
            raise EditError("constants inside functions: not supported yet")  # replaced by ir work
        value = Input(name, tensor.shape, None)
        value.dtype = tensor.dtype
        value.const_value = tensor
        scope.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        *,
        outputs: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
        name: str = "",
        like: Node | None = None,
    ) -> Node:
        """A node that is not in a graph yet; `outputs` are name hints, `like` gives metadata."""
        made = Node(
            domain,
            op_type,
            inputs,
            convert_attributes(dict(attributes or {})),
            num_outputs=len(outputs),
            name=self.name(name or f"{op_type}_{outputs[0]}"),
            metadata_props=dict(like.metadata_props) if like is not None else None,
        )
        for value, hint in zip(made.outputs, outputs, strict=True):
            value.name = self.name(hint)
        return made


def _all_names(model: Model) -> set[str]:
    names: set[str] = set()
    for scope in scopes(model):
        names.update(v.name for v in scope.inputs if v.name)
        if isinstance(scope, Graph):
            names.update(scope.initializers)
        for node in scope:
            names.update(v.name for v in node.outputs if v.name)
            if node.name:
                names.add(node.name)
    return names
