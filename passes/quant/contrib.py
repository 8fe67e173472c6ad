"""Operators of ONNX Runtime itself: the domain they are in."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.ir import Editor, Node

DOMAIN = "com.microsoft"


def import_domain(editor: Editor, node: Node) -> None:
    """The model, and a function that holds the node, say that they use the domain."""
    scope = editor.scope_of(node)
    if isinstance(scope, ir.Function):
        scope.opset_imports.setdefault(DOMAIN, 1)
    editor.model.opset_imports.setdefault(DOMAIN, 1)
