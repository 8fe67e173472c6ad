"""A part of a model: from these values on, up to those values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxslim.errors import ConfigError
from onnxslim.ir.dead import remove_all
from onnxslim.ir.edit import Editor
from onnxslim.ir.infer import Inferred, infer_types
from onnxslim.ir.known import unknown_name
from onnxslim.ir.modern import raise_ir_version
from onnxslim.ir.names import defined
from onnxslim.ir.splice import Front, redirect
from onnxslim.ir.tensors import rename
from onnxslim.ir.types import DataType, Model, Shape, TensorType, Value

TYPES: Mapping[str, DataType] = {
    "fp16": DataType.FLOAT16,
    "float16": DataType.FLOAT16,
    "fp32": DataType.FLOAT,
    "float32": DataType.FLOAT,
    "int32": DataType.INT32,
    "int64": DataType.INT64,
    "bool": DataType.BOOL,
}
"""Element types as they stand behind a name: `logits:fp32`."""


def cut(model: Model, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> None:
    """Let the named values of the main graph be its inputs and its outputs, in that order.

    Without names the inputs (outputs) stay. A name may carry an element type, `x:fp16`: a Cast
    makes it so. What no output depends on any more goes away, inputs that were read before too;
    inputs that are still needed stay behind those that are named.

    Raises:
        ConfigError: no such value in the main graph, named twice, of an unknown type, or one
            that is no tensor. The model is as it was.
    """
    if not inputs and not outputs:
        return
    known = infer_types(model)
    there = {value.name: value for value in defined(model.graph) if value.name}
    ends = [_Ends("input", inputs, there, known), _Ends("output", outputs, there, known)]
    raise_ir_version(model, 4)  # before, every weight was an input as well
    read = {value for value in model.graph.inputs if value.uses()}
    editor = Editor(model)
    if outputs:
        _set_outputs(editor, ends[1])
    if inputs:
        _set_inputs(editor, ends[0])
    remove_all(model)
    named = {name for name, _ in ends[0].named}
    for value in list(model.graph.inputs):
        needed = value.uses() or value.is_graph_output() or value.name in named
        if value in read and not needed:
            model.graph.inputs.remove(value)
            model.graph.initializers.pop(str(value.name), None)


def _place(value: Value) -> int:
    """In an error's list inputs and outputs come first and weights last."""
    if value.is_graph_input() or value.is_graph_output():
        return 0
    return 2 if value.is_initializer() else 1


class _Ends:
    """The named values with their types, all of them checked before anything changes."""

    def __init__(
        self,
        what: str,
        texts: Sequence[str],
        there: Mapping[str, Value],
        known: Mapping[str, Inferred],
    ) -> None:
        self.what = what
        self._there, self._known = there, known
        self.named = [self._split(text) for text in texts]
        names = [name for name, _ in self.named]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"{what}s: '{twice}' is named twice")
        self.types = {name: self._type(name, given) for name, given in self.named}

    def value(self, name: str) -> Value:
        """The value of that name."""
        return self._there[name]

    def _split(self, text: str) -> tuple[str, DataType | None]:
        """The name and the type behind it; names may have colons themselves."""
        name, _, suffix = text.rpartition(":")
        if text in self._there:
            return text, None
        if name not in self._there:
            names = sorted(self._there, key=lambda name: _place(self._there[name]))
            raise ConfigError(f"{self.what}s: {unknown_name('value', text, names)}")
        if suffix not in TYPES:
            raise ConfigError(f"{self.what}s: {text}: expected one of {', '.join(TYPES)}")
        return name, TYPES[suffix]

    def _type(self, name: str, given: DataType | None) -> tuple[DataType, Shape | None]:
        """The element type that the value has, or shall have where nothing tells, and its shape."""
        value, found = self._there[name], self._known.get(name)
        if value.type is not None and not isinstance(value.type, TensorType):
            raise ConfigError(f"{self.what}s: '{name}' is {value.type}; expected a tensor")
        dtype = value.dtype if found is None or found.dtype is None else found.dtype
        if (dtype or given) is None:
            raise ConfigError(
                f"{self.what}s: the type of '{name}' is not known; give it: {name}:fp32"
            )
        if self.what == "output" and value.is_graph_input() and given not in (None, dtype):
            raise ConfigError(f"outputs: '{name}' is an input, whose type cannot be another one")
        shape = value.shape
        if found is not None and found.shape is not None:
            shape = Shape(found.shape)
        return dtype or given or DataType.FLOAT, shape


def _set_outputs(editor: Editor, ends: _Ends) -> None:
    graph = editor.model.graph
    chosen: list[Value] = []
    for name, given in ends.named:
        value = ends.value(name)
        dtype, shape = ends.types[name]
        _describe(value, dtype, shape)
        wanted = given or dtype
        chosen.append(value if wanted == dtype else _cast_behind(editor, value, wanted))
    graph.outputs.clear()
    graph.outputs.extend(chosen)


def _cast_behind(editor: Editor, value: Value, to: DataType) -> Value:
    """The value in another type, under its name."""
    name = str(value.name)
    rename(value, editor.name(f"{name}_as_{value.dtype}".lower()))
    node = editor.node("Cast", [value], outputs=["cast"], attributes={"to": int(to)})
    rename(node.outputs[0], name)
    _describe(node.outputs[0], to, value.shape)
    editor.model.graph.append(node)
    return node.outputs[0]


def _set_inputs(editor: Editor, ends: _Ends) -> None:
    graph = editor.model.graph
    chosen = [_as_input(editor, name, given, ends) for name, given in ends.named]
    rest = [value for value in graph.inputs if value not in chosen]
    graph.inputs.clear()
    graph.inputs.extend([*chosen, *rest])


def _as_input(editor: Editor, name: str, given: DataType | None, ends: _Ends) -> Value:
    """A graph input of that name, which all that read the value read from now on."""
    graph, value = editor.model.graph, ends.value(name)
    dtype, shape = ends.types[name]
    wanted = given or dtype
    if value.is_graph_input() and wanted == dtype:
        return value
    made = Value(name=None)
    _describe(made, wanted, shape)
    uses = [(use.node, use.idx) for use in value.uses()]
    if wanted != dtype:
        node = editor.node("Cast", [made], outputs=[f"{name}_cast"], attributes={"to": int(dtype)})
        _describe(node.outputs[0], dtype, shape)
        Front().add(graph, (node,))
        redirect(uses, node.outputs[0])
    else:
        redirect(uses, made)
    _replace(editor, value, made)
    rename(value, editor.name(f"{name}_computed"))
    rename(made, name)
    graph.inputs.append(made)
    return made


def _replace(editor: Editor, value: Value, made: Value) -> None:
    """Take the old value out of the graph's ends and weights."""
    graph = editor.model.graph
    graph.initializers.pop(str(value.name), None)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = made
    if value in graph.inputs:
        graph.inputs.remove(value)


def _describe(value: Value, dtype: DataType, shape: Shape | None) -> None:
    if value.const_value is None:
        value.type = TensorType(dtype)
        value.shape = shape
