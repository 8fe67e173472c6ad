"""Functions of a model: calls replaced by bodies, and definitions and imports that nothing uses."""

from __future__ import annotations

from collections.abc import Iterator

from onnxslim.ir.names import fix_names
from onnxslim.ir.types import Model, Node, Scope
from onnxslim.ir.walk import STANDARD_DOMAINS, scope_tree, scopes

_Key = tuple[str, str, str]


def inline_functions(model: Model) -> int:
    """Replace every call of a function of the model by its body; how many. Names stay unique.

    Editors and facts made before know nothing of it: make new ones.
    """
    calls = sum(_called(node) in model.functions for s in scopes(model) for node in s)
    if calls:
        from onnx_ir.passes.common import InlinePass

        InlinePass()(model)
        fix_names(model)
    return calls


def remove_unused_functions(model: Model) -> int:
    """Remove functions that the main graph calls neither itself nor through others; how many."""
    used: set[_Key] = set()
    todo: list[Scope] = [model.graph]
    while todo:
        found = {key for key in _calls(todo.pop()) if key in model.functions} - used
        used |= found
        todo.extend(model.functions[key] for key in sorted(found))
    unused = [key for key in model.functions if key not in used]
    for key in unused:
        del model.functions[key]
    return len(unused)


def remove_unused_imports(model: Model) -> int:
    """Remove operator sets that no node and no function of the model needs; how many.

    The standard one stays: constants may need it later.
    """
    used = {node.domain for scope in scopes(model) for node in scope} | STANDARD_DOMAINS
    used |= {domain for function in model.functions.values() for domain in function.opset_imports}
    unused = [domain for domain in model.opset_imports if domain not in used]
    for domain in unused:
        del model.opset_imports[domain]
    return len(unused)


def _calls(root: Scope) -> Iterator[_Key]:
    return (_called(node) for scope in scope_tree(root) for node in scope)


def _called(node: Node) -> _Key:
    return (node.domain, node.op_type, node.overload)
