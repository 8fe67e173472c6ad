"""The only way to change a graph. Every edit checks everything first, then changes everything.

An edit that cannot be done raises `EditError` with the reason and leaves the model as it was; new
nodes that were given to it are spent: they read nothing any more. So does `discard` for nodes that
were made and not needed; else what they read would count as read.
Build one `Editor` per pass: it reads the model once, so that edits stay linear. The order of
nodes is the caller's: what a new node reads must be computed before the place it is put at
(`ir.verify` tells).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnx_ir.convenience import convert_attributes

from onnxslim.errors import EditError
from onnxslim.ir import dead
from onnxslim.ir.modern import raise_ir_version
from onnxslim.ir.names import Names, all_names
from onnxslim.ir.sight import Sight, graph_behind
from onnxslim.ir.splice import Front, Use, check_can_be_output, redirect, take_over
from onnxslim.ir.tensors import make_tensor, rename, set_constant
from onnxslim.ir.types import Attr, AttributeType, Model, Node, Scope, TensorProtocol, Value
from onnxslim.ir.walk import Array, constant, is_fixed, label, op

INITIALIZERS_ALONE = 4
"""The IR version since which an initializer need not be a graph input too."""


class Editor:
    """Edits one model. Names that it makes are unique over all scopes of the model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._names = Names(all_names(model))
        self._sight = Sight(model)
        self._front = Front()

    def name(self, hint: str) -> str:
        """A name that nothing in the model has: the hint itself, or the hint with a number."""
        return self._names.new(hint)

    def scope_of(self, thing: Node | Value) -> Scope:
        """The scope that a node is in or a value is defined in; a Function, not its graph.

        Constants for `insert_on_edge` belong in the scope of the value.
        """
        return self._sight.scope_of(thing)

    # New things

    def initializer(self, scope: Scope, hint: str, content: Array | TensorProtocol) -> Value:
        """A new constant in a scope: an initializer, or in a function a Constant node.

        An array is taken over without a copy; so are the data of a tensor.
        """
        name = self.name(hint)
        tensor = make_tensor(content, name)
        if self._sight.is_function(scope):
            return self._constant_node(scope, name, tensor)
        if self.model.ir_version < INITIALIZERS_ALONE:
            raise_ir_version(self.model, INITIALIZERS_ALONE)
        value = Value(name=name)
        set_constant(value, tensor)
        graph_behind(scope).register_initializer(value)
        return value

    def _constant_node(self, scope: Scope, name: str, tensor: TensorProtocol) -> Value:
        attribute = Attr("value", AttributeType.TENSOR, tensor)
        node = Node("", "Constant", (), (attribute,), name=self.name(f"Constant_{name}"))
        node.outputs[0].name = name
        set_constant(node.outputs[0], tensor)
        node.outputs[0].const_value = None
        self._front.add_constant(graph_behind(scope), node)
        return node.outputs[0]

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
            doc_string=like.doc_string if like is not None else None,
            metadata_props=dict(like.metadata_props) if like is not None else None,
        )
        for value, hint in zip(made.outputs, outputs, strict=True):
            value.name = self.name(hint)
        return made

    def discard(self, nodes: Iterable[Node]) -> None:
        """Give up nodes that were made and put nowhere: they read nothing any more."""
        dead.release(nodes)

    # Placing nodes

    def insert_before(self, anchor: Node, nodes: Sequence[Node]) -> None:
        """Put new nodes before a node of the model."""
        with dead.released_when_refused(nodes):
            graph = graph_behind(self.scope_of(anchor))
            self._sight.check_reads(nodes, graph)
        graph.insert_before(anchor, nodes)
        self._enter(nodes)

    def insert_after(self, anchor: Node, nodes: Sequence[Node]) -> None:
        """Put new nodes after a node of the model."""
        with dead.released_when_refused(nodes):
            graph = graph_behind(self.scope_of(anchor))
            self._sight.check_reads(nodes, graph)
        graph.insert_after(anchor, nodes)
        self._enter(nodes)

    def insert_on_edge(
        self,
        value: Value,
        nodes: Sequence[Node],
        new_value: Value,
        uses: Iterable[Use] | None = None,
    ) -> None:
        """Put a chain that computes `new_value` from `value` behind the value.

        The given uses then read the new value; by default every node that reads the old one,
        inner scopes included. A graph output stays the old value. Besides the value, the chain
        may read constants and what is computed before the value.
        """
        with dead.released_when_refused(nodes):
            graph = graph_behind(self.scope_of(value))
            self._sight.check_reads(nodes, graph)
            chosen = self._chosen_uses(value, nodes, uses)
            if new_value.producer() not in nodes:
                raise EditError(f"'{new_value.name}' is not computed by the nodes given")
        if (producer := value.producer()) is not None:
            graph.insert_after(producer, nodes)
        else:
            self._front.add(graph, nodes)
        self._enter(nodes)
        redirect(chosen, new_value)

    def _chosen_uses(
        self, value: Value, nodes: Sequence[Node], uses: Iterable[Use] | None
    ) -> list[Use]:
        if uses is None:
            everything = ((use.node, use.idx) for use in value.uses())
            chosen = [(node, i) for node, i in everything if node.graph is not None]
        else:
            chosen = [(node, index) for node, index in uses]
        for node, index in chosen:
            if node in nodes or index >= len(node.inputs) or node.inputs[index] is not value:
                raise EditError(f"input {index} of '{label(node)}' does not read '{value.name}'")
            self.scope_of(node)
        if not chosen:
            raise EditError(f"no node reads '{value.name}'")
        return chosen

    def _enter(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._sight.enter_all(node)

    # Replacing

    def replace_node(
        self, old: Node, nodes: Sequence[Node], outputs: Sequence[Value | None]
    ) -> None:
        """Put nodes in the place of a node; `outputs` stand for its outputs, in their order.

        A value that the nodes compute inherits the name, type, shape and metadata of the old
        output, also as a graph output. A value that was there before keeps its own name; it
        cannot stand for a graph output. None stands for an output that nothing reads.
        """
        fresh = {value for node in nodes for value in node.outputs}
        with dead.released_when_refused(nodes):
            graph = graph_behind(self.scope_of(old))
            self._sight.check_reads(nodes, graph)
            self._check_replacement(old, nodes, outputs, fresh)
        graph.insert_before(old, nodes)
        self._enter(nodes)
        for value, stand_in in zip(old.outputs, outputs, strict=True):
            if stand_in is not None:
                take_over(graph, value, stand_in, stand_in in fresh)
        dead.remove(graph, old, keep=nodes)

    def _check_replacement(
        self, old: Node, nodes: Sequence[Node], outputs: Sequence[Value | None], fresh: set[Value]
    ) -> None:
        if len(outputs) != len(old.outputs):
            raise EditError(f"'{label(old)}' has {len(old.outputs)} outputs, not {len(outputs)}")
        for value, stand_in in zip(old.outputs, outputs, strict=True):
            self._check_stand_in(old, value, stand_in, fresh)
        given = [value for value in outputs if value is not None]
        if len(set(given)) != len(given):
            raise EditError("the same value stands for two outputs")
        if any(use.node in nodes for value in old.outputs for use in value.uses()):
            raise EditError(f"the new nodes read an output of '{label(old)}', which goes away")

    def _check_stand_in(
        self, old: Node, value: Value, stand_in: Value | None, fresh: set[Value]
    ) -> None:
        if stand_in is None:
            if value.uses() or value.is_graph_output():
                raise EditError(f"'{value.name}' is still read; None cannot stand for it")
            return
        if stand_in in fresh:
            return
        if value.is_graph_output():
            raise EditError(f"'{value.name}' is a graph output; only a new value can take its name")
        if stand_in in old.outputs:
            raise EditError(f"'{stand_in.name}' is an output of the node that goes away")
        self._sight.check_value(stand_in, graph_behind(self.scope_of(old)), old)

    def bypass(self, node: Node, value: Value) -> None:
        """Take a node out; the value stands for its first output, nothing reads the others.

        Where that output is a graph output, the value becomes it and takes over its name, type
        and shape. Refused for a value that must keep its own name (an input, a constant, another
        output) or that another graph computes.
        """
        output = node.outputs[0]
        if not output.is_graph_output():
            self.replace_node(node, (), [value, *[None] * (len(node.outputs) - 1)])
            return
        graph = graph_behind(self.scope_of(node))
        for rest in node.outputs[1:]:
            self._check_stand_in(node, rest, None, set())
        check_can_be_output(value, output, graph)
        take_over(graph, output, value, is_fresh=True)
        dead.remove(graph, node)

    def replace_initializer(self, value: Value, tensor: Array | TensorProtocol) -> None:
        """Other content for a constant; the name stays, type and shape may change.

        The value is an initializer or the output of a Constant node. All that read it read the
        new content: see `unshare`. Refused for what a caller can override or gets to see.
        """
        producer = value.producer()
        if value.is_graph_output():
            raise EditError(f"'{value.name}' is a graph output")
        if producer is None and value.is_initializer() and not is_fixed(value):
            raise EditError(f"'{value.name}' is a graph input that callers can override")
        made = make_tensor(tensor, value.name or "")
        if producer is None and value.is_initializer():
            set_constant(value, made)
        elif producer is not None and op(producer) == "Constant":
            producer.attributes.clear()
            producer.attributes.add(Attr("value", AttributeType.TENSOR, made))
            set_constant(value, made)
            value.const_value = None
        else:
            raise EditError(f"'{value.name}' is not a constant")

    def unshare(self, node: Node, index: int) -> Value:
        """A constant input that is the node's own: nothing else reads it, no Identity before it.

        What is so already is returned as it is; else the node gets an initializer of its own
        scope (in a function a Constant node) with the same data, not copied.
        """
        scope = self.scope_of(node)
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            raise EditError(f"'{label(node)}' has no input {index}")
        tensor = constant(value)
        if tensor is None:
            raise EditError(f"'{value.name}', input {index} of '{label(node)}', is not constant")
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        producer = value.producer()
        if alone and (is_fixed(value) or (producer is not None and op(producer) == "Constant")):
            return value
        own = self.initializer(scope, value.name or "constant", tensor)
        node.replace_input_with(index, own)
        return own

    def rewire(self, uses: Iterable[Use], new_value: Value) -> None:
        """Let each of the uses read the new value, which they must be able to see."""
        chosen = list(uses)
        for node, index in chosen:
            graph = graph_behind(self.scope_of(node))
            if not 0 <= index < len(node.inputs):
                raise EditError(f"'{label(node)}' has no input {index}")
            if new_value.producer() is node:
                raise EditError(f"'{label(node)}' would read its own output")
            self._sight.check_value(new_value, graph, node)
        redirect(chosen, new_value)

    def take_name(self, value: Value, old: Value) -> None:
        """Give a value the name of one that is no longer in the model."""
        producer = old.producer()
        if (old.graph if producer is None else producer.graph) is not None:
            raise EditError(f"'{old.name}' is still in the model and keeps its name")
        name, old.name = old.name, None
        if name:
            rename(value, name)

    def remove_dead(self) -> int:
        """Remove nodes and initializers that no output depends on, in all scopes; how many."""
        return dead.remove_all(self.model)

    def prune(self, nodes: Iterable[Node]) -> list[Node]:
        """Remove those of the nodes that no output depends on, and nodes that are so without them.

        Returns the nodes that stay and whose outputs lost a reader. Cost: that of what is removed.
        """
        return dead.remove_from(nodes)
