"""Whether a model is valid: ONNX's checker, and what the checker does not see."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import onnx
from onnx import ModelProto

from onnxslim.errors import ModelError
from onnxslim.ir.carve import Skeleton, skeleton
from onnxslim.ir.collector import paused
from onnxslim.ir.light import light_proto, one_line
from onnxslim.ir.names import defined
from onnxslim.ir.preflight import is_small
from onnxslim.ir.types import Function, Graph, Model, Node, Scope, Value
from onnxslim.ir.walk import label, op, scope_trees, subgraphs


def verify(model: Model) -> None:
    """Check the model; works at any size, since the weights are not part of what is checked.

    Own rules first, as they name the node: every value that is read is defined before, in the same
    or an enclosing scope; names are unique over the main graph with all its subgraphs and over
    each function; every graph output is computed. Then ONNX's checker.

    Raises:
        ModelError: the first violation, with the node's name.
    """
    verified(model)


def verified(model: Model) -> Skeleton:
    """What `verify` checked, which can be written."""
    verify_own_rules(model)
    with paused():
        made = skeleton(model)
    if is_small(made.proto):
        check_proto(made.proto)
    else:  # of many weights whose data are not raw
        with light_proto(model) as light:
            check_proto(light.proto)
    return made


def verify_own_rules(model: Model) -> None:
    """The own rules alone; raises ModelError."""
    with paused():
        problem = next(problems(model), None)
    if problem is not None:
        raise ModelError(f"invalid graph: {problem}")


def check_proto(proto: ModelProto) -> None:
    """ONNX's checker as a `ModelError` of one line."""
    try:
        with _shapes_everywhere(proto):
            onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"invalid graph: {one_line(str(error))}") from error
    except UnicodeDecodeError as error:  # from the checker's own message
        raise ModelError("invalid graph: a name in it is not UTF-8") from error
    except RuntimeError as error:  # what onnx's C++ code raises otherwise
        raise ModelError(f"invalid graph: {one_line(str(error))}") from error


@contextmanager
def _shapes_everywhere(proto: ModelProto) -> Generator[None, None, None]:
    """Inputs and outputs without a shape have one for a while.

    The checker asks for it; runtimes do not, and real files come without.
    """
    types = [value.type.tensor_type for value in (*proto.graph.input, *proto.graph.output)
             if value.type.HasField("tensor_type")]  # fmt: skip
    bare = [type_ for type_ in types if not type_.HasField("shape")]
    for type_ in bare:
        type_.shape.SetInParent()
    try:
        yield
    finally:
        for type_ in bare:
            type_.ClearField("shape")


def problems(model: Model) -> Iterator[str]:
    """The violations of the own rules, one sentence each."""
    for tree in scope_trees(model):
        yield from _tree_problems(list(tree))


def _tree_problems(tree: list[Scope]) -> Iterator[str]:
    place = _Places(tree)
    names: dict[str, Value] = {}
    for scope in tree:
        yield from _name_problems(scope, names)
        for node in scope:
            yield from place.input_problems(node)
        for value in scope.outputs:
            if not place.defines(scope, value):
                yield f"output '{value.name}' of {_scope_name(scope)} is not computed in it"


def _name_problems(scope: Scope, names: dict[str, Value]) -> Iterator[str]:
    for value in defined(scope):
        if value.name and names.setdefault(value.name, value) is not value:
            producer = value.producer()
            where = f"by node '{label(producer)}'" if producer else f"in {_scope_name(scope)}"
            yield f"the name '{value.name}' is defined a second time {where}"
        if not value.name and (value.is_graph_output() or value.uses()):
            yield f"a value that is read has no name (in {_scope_name(scope)})"


def _scope_name(scope: Scope) -> str:
    kind = "function" if isinstance(scope, Function) else "graph"
    return f"{kind} '{scope.name}'"


class _Places:
    """Where each value of a tree of scopes is defined, to tell what a node can see."""

    def __init__(self, tree: list[Scope]) -> None:
        self._scope: dict[Value, int] = {}
        self._order: dict[Node, int] = {}
        self._holder: dict[int, Node] = {}
        for scope in tree:
            graph = id(_graph(scope))
            for value in defined(scope):
                self._scope[value] = graph
            for number, node in enumerate(scope):
                self._order[node] = number
                for inner in subgraphs(node):
                    self._holder[id(inner)] = node

    def defines(self, scope: Scope, value: Value) -> bool:
        """Whether the scope itself defines the value."""
        return self._scope.get(value) == id(_graph(scope))

    def input_problems(self, node: Node) -> Iterator[str]:
        """What the node reads but cannot see."""
        for index, value in enumerate(node.inputs):
            if value is not None and (why := self._invisible(node, value)):
                yield f"input {index} ('{value.name}') of node '{label(node)}' ({op(node)}) {why}"

    def _invisible(self, node: Node, value: Value) -> str | None:
        home = self._scope.get(value)
        if home is None:
            if value.const_value is not None:
                return "is a constant that is not an initializer of any graph"
            return "is not an output of any node, a graph input or an initializer"
        reader: Node | None = node
        while reader is not None and id(reader.graph) != home:
            reader = self._holder.get(id(reader.graph))
        if reader is None:
            return "is defined in a scope that the node cannot see"
        producer = value.producer()
        if producer is not None and self._order[producer] >= self._order[reader]:
            return "is computed only after it; nodes must be sorted"
        return None


def _graph(scope: Scope) -> Graph:
    return scope.graph if isinstance(scope, Function) else scope
