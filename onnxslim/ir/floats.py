"""A model in another floating-point type: float32 to float16 and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from onnxslim.errors import ConfigError
from onnxslim.ir.cut import cut
from onnxslim.ir.edit import Editor
from onnxslim.ir.infer import Inferred, infer_types
from onnxslim.ir.modern import raise_ir_version
from onnxslim.ir.names import defined
from onnxslim.ir.precision import LISTS, Slots
from onnxslim.ir.splice import Use, redirect
from onnxslim.ir.tensors import rename, static_shape
from onnxslim.ir.types import (
    Attr,
    AttributeType,
    DataType,
    Graph,
    LazyTensor,
    Model,
    Node,
    Tensor,
    TensorProtocol,
    TensorType,
    Value,
)
from onnxslim.ir.walk import (
    STANDARD_DOMAINS,
    Array,
    attribute,
    constant_of,
    is_fixed,
    label,
    nodes,
    op,
    scope_tree,
)

_OTHER = {DataType.FLOAT16: DataType.FLOAT, DataType.FLOAT: DataType.FLOAT16}

SHORT = {DataType.FLOAT16: "fp16", DataType.FLOAT: "fp32"}


def convert_floats(model: Model, to: DataType, keep: Collection[Node] = ()) -> int:
    """Let all that is float32 be float16 (or the reverse), between casts at the model's ends.

    Weights, values and the nodes between them change type. Where an operator does not allow it,
    or it would not be wise (see `onnxslim.ir.precision`), Casts surround the node. Numbers beyond
    the range of float16 become its largest, and what would round to zero its smallest number, so
    that no infinity and no division by zero appears. The nodes to `keep` stay as they are.
    Returns how many nodes, weights and Casts were touched; 0 means that the model is as it was.

    Raises:
        ConfigError: the model holds sequences or optional values, or a type is not known.
    """
    _check(model)
    known = infer_types(model)
    work = _Conversion(model, to, known, keep)
    if work.nothing_to_do():
        return 0
    raise_ir_version(model, 4)
    return work.run()


def retype_ends(model: Model, to: DataType) -> None:
    """Let inputs and outputs of the other type have this one, too; names stay."""
    other = _OTHER[to]
    ends = model.graph.inputs, model.graph.outputs
    texts = [
        [f"{v.name}:{SHORT[to]}" if v.dtype == other else str(v.name) for v in end] for end in ends
    ]
    cut(model, inputs=texts[0], outputs=texts[1])
    editor = Editor(model)
    for node in list(model.graph):
        before = node.inputs[0].producer() if op(node) == "Cast" and node.inputs[0] else None
        if before is None or op(before) != "Cast" or attribute(node, "to") != to:
            continue
        source = before.inputs[0]
        if source is not None and source.dtype == to and attribute(before, "to") == other:
            _collapse(editor, node, source)
    editor.remove_dead()


def _collapse(editor: Editor, node: Node, source: Value) -> None:
    """Cast to the other type and back: the readers read the source, outputs keep their name."""
    output = node.outputs[0]
    redirect([(use.node, use.idx) for use in output.uses()], source)
    plain = not (source.is_graph_input() or source.is_graph_output() or source.is_initializer())
    if output.is_graph_output() and plain and source.graph is editor.model.graph:
        editor.bypass(node, source)


def _check(model: Model) -> None:
    for node in nodes(model):
        if node.op_type.startswith(LISTS):
            raise ConfigError(
                f"the element type of this model cannot be changed: '{label(node)}' "
                f"({op(node)}) works with sequences or optional values"
            )
        if node.domain not in STANDARD_DOMAINS and any(
            a.type in (AttributeType.GRAPH, AttributeType.GRAPHS) for a in node.attributes.values()
        ):
            raise ConfigError(
                f"the element type of this model cannot be changed: '{label(node)}' "
                f"({op(node)}) holds a graph and is not a standard operator"
            )


class _Conversion:
    """One conversion: decide per value and use, then change types, then insert the Casts."""

    def __init__(
        self, model: Model, to: DataType, known: Mapping[str, Inferred], keep: Collection[Node]
    ) -> None:
        self._model, self._to, self._from = model, to, _OTHER[to]
        self._known = known
        self._slots = Slots(model, to, keep)
        self._scopes = [scope for scope in scope_tree(model.graph) if isinstance(scope, Graph)]
        self._values = [
            value for s in self._scopes for value in defined(s) if self._type(value) == self._from
        ]
        self._wants = self._wanted()

    def nothing_to_do(self) -> bool:
        """Whether no value has the type."""
        return not self._values

    def run(self) -> int:
        """Change the model; returns how many values and attributes were touched."""
        self._check_types()
        editor = Editor(self._model)
        natural = {value: self._natural(value) for value in self._values}
        count = sum(self._attributes(node) for scope in self._scopes for node in scope)
        for value, dtype in natural.items():
            if value.is_initializer() and is_fixed(value):
                count += self._weight(editor, value)
            else:
                count += self._value(editor, value, dtype)
        editor.remove_dead()
        return count

    def _type(self, value: Value) -> DataType | None:
        if value.const_value is not None:
            return value.const_value.dtype
        found = self._known.get(str(value.name))
        return value.dtype if found is None or found.dtype is None else found.dtype

    def _check_types(self) -> None:
        """What other domains compute has a type that somebody must tell."""
        for scope in self._scopes:
            for node in scope:
                for value in node.outputs if node.domain not in STANDARD_DOMAINS else ():
                    if value.uses() and self._type(value) is None:
                        raise ConfigError(
                            f"the element type of this model cannot be changed: the type of "
                            f"'{value.name}', which '{label(node)}' ({op(node)}) computes, is "
                            "not known"
                        )

    def _wanted(self) -> dict[Node, list[bool]]:
        """Which inputs of each node take the new type."""
        return {node: self._slots.inputs(node) for scope in self._scopes for node in scope}

    def _natural(self, value: Value) -> DataType:
        """The type that a value has by what makes it."""
        producer = value.producer()
        if producer is not None:
            index = producer.outputs.index(value)
            return self._to if self._slots.outputs(producer)[index] else self._from
        main = value.is_graph_input() and value.graph is self._model.graph
        return self._from if main else self._to

    def _readers(self, value: Value) -> tuple[list[Use], list[Use]]:
        """The uses that take the new type, and those that need the old one."""
        uses = [(use.node, use.idx) for use in value.uses()]
        new = [u for u in uses if u[0] in self._wants and self._wants[u[0]][u[1]]]
        return new, [u for u in uses if u not in new]

    def _value(self, editor: Editor, value: Value, natural: DataType) -> int:
        """A computed value or an input: its type, and a Cast for the others that read it."""
        new, old = self._readers(value)
        shape = value.shape
        others = old if natural == self._to else new
        wanted = self._end_type(value)
        as_output = wanted is not None and wanted != natural
        if natural == self._from and not others and not as_output:
            return 0
        value.type = TensorType(natural)
        if not others and not as_output:
            return 1
        kind = self._from if natural == self._to else self._to
        cast = editor.node(
            "Cast", [value], outputs=[f"{value.name}_{SHORT[kind]}"], attributes={"to": int(kind)}
        )
        result = cast.outputs[0]
        result.type, result.shape = TensorType(kind), shape
        if others:
            editor.insert_on_edge(value, [cast], result, others)
        else:
            self._behind(editor, value, cast)
        if as_output:
            _become_output(editor, value, result)
        return 1

    def _behind(self, editor: Editor, value: Value, cast: Node) -> None:
        producer = value.producer()
        if producer is not None:
            editor.insert_after(producer, [cast])
        elif isinstance(value.graph, Graph):
            value.graph.append(cast)

    def _end_type(self, value: Value) -> DataType | None:
        """The type that a graph output must have: the model's keep theirs, inner ones follow."""
        if not value.is_graph_output():
            return None
        producer = value.producer()
        graph = value.graph if producer is None else producer.graph
        return self._from if graph is self._model.graph else self._to

    def _weight(self, editor: Editor, value: Value) -> int:
        """A constant: in the new type for those that take it, else as it is."""
        new, old = self._readers(value)
        tensor = value.const_value
        inner_end = self._end_type(value) == self._to
        if tensor is None or not (new or inner_end):
            return 0
        made = self._tensor(tensor)
        if (old or value.is_graph_output()) and not inner_end:
            own = editor.initializer(
                editor.scope_of(value), f"{value.name}_{SHORT[self._to]}", made
            )
            redirect(new, own)
            return 1
        if old:
            scope = editor.scope_of(value)
            redirect(old, editor.initializer(scope, f"{value.name}_{SHORT[self._from]}", tensor))
        value.const_value = made
        value.type = TensorType(self._to)
        return 1

    def _tensor(self, tensor: TensorProtocol) -> TensorProtocol:
        """The tensor in the new type, computed when it is read."""
        to = self._to
        return LazyTensor(
            lambda: Tensor(_converted(tensor.numpy(), to), name=tensor.name),
            to,
            static_shape(tensor),
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )

    def _attributes(self, node: Node) -> int:
        """Types and numbers that a node of the new type holds itself."""
        if not any(self._slots.outputs(node)):
            return 0
        kind = op(node)
        if kind in _CASTS and attribute(node, _CASTS[kind]) == self._from:
            node.attributes.add(Attr(_CASTS[kind], AttributeType.INT, int(self._to)))
            return 1
        if kind == "Constant" and (tensor := constant_of(node)) is not None:
            if tensor.dtype != self._from:
                return 0
            node.attributes.clear()
            node.attributes.add(Attr("value", AttributeType.TENSOR, self._tensor(tensor)))
            return 1
        if kind == "ConstantOfShape":
            return self._filled(node)
        return 0

    def _filled(self, node: Node) -> int:
        """ConstantOfShape fills with float32 zeros when it is not told what with."""
        attr = node.attributes.get("value")
        old = Tensor(np.zeros(1, np.float32)) if attr is None else attr.as_tensor()
        if old.dtype != self._from:
            return 0
        node.attributes.add(Attr("value", AttributeType.TENSOR, self._tensor(old)))
        return 1


_CASTS = {"Cast": "to", "EyeLike": "dtype"}


def _become_output(editor: Editor, value: Value, result: Value) -> None:
    """The result is the graph output in place of the value, under its name."""
    producer = result.producer()
    graph = editor.model.graph if producer is None else producer.graph
    if not isinstance(graph, Graph):
        return
    name = str(value.name)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = result
    rename(value, editor.name(f"{name}_{SHORT[value.dtype or DataType.FLOAT]}"))
    rename(result, name)


def _converted(array: Array, to: DataType) -> Array:
    """Rounded to nearest; within the range of the type, and nothing but zero becomes zero."""
    if to == DataType.FLOAT:
        return array.astype(np.float32)
    info = np.finfo(np.float16)
    finite = np.isfinite(array)
    within = np.where(finite, np.clip(array, info.min, info.max), array)
    half = within.astype(np.float16)
    lost = (half == 0) & (array != 0)
    return np.where(lost, np.copysign(info.smallest_subnormal, array), half).astype(np.float16)
