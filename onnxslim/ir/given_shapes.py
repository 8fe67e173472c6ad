"""Static shapes for inputs: the sizes that a user knows, at every place that names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx.shape_inference

from onnxslim.errors import ConfigError, ModelError
from onnxslim.ir.infer import Inferred, infer_types
from onnxslim.ir.known import unknown_name
from onnxslim.ir.light import light_proto, one_line
from onnxslim.ir.names import defined
from onnxslim.ir.state import snapshot
from onnxslim.ir.types import Model, Shape, TensorType, Value
from onnxslim.ir.walk import LISTED_INPUT, scope_tree

Dims = tuple["int | str | None", ...]

AS_IT_IS = -1
"""A size that stays what the model says."""


def set_input_shapes(model: Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give inputs of the main graph these sizes; -1 leaves a size as it is.

    A dimension with a name gets the size wherever the name stands: in other inputs, in inner
    values, in outputs. Where a size replaces another one, what the model declares of inner values
    and outputs is forgotten, and the outputs get what inference finds.

    Raises:
        ConfigError: no such input, another rank, a negative size, two sizes for one name, or
            sizes that the operators of the model contradict. The model is as it was.
    """
    sizes, replaced = _sizes(model, shapes)
    twin = snapshot(model)
    _apply(twin, shapes, sizes, replaced)
    if (why := _contradiction(twin)) and not _contradiction(model):
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigError(f"the model does not work with the input shapes {given}: {why}")
    _apply(model, shapes, sizes, replaced)


def _sizes(model: Model, shapes: Mapping[str, Sequence[int]]) -> tuple[dict[str, int], bool]:
    """The size of each dimension name, and whether a size replaces another one."""
    inputs = {str(value.name): value for value in _inputs(model)}
    sizes: dict[str, int] = {}
    replaced = False
    for name, shape in shapes.items():
        if name not in inputs:
            raise ConfigError(f"input shapes: {unknown_name('input', name, inputs)}")
        for old, new in zip(_checked(inputs[name], shape), shape, strict=True):
            if new == AS_IT_IS or old is None:
                continue
            if isinstance(old, int):
                replaced |= old != new
            elif sizes.setdefault(old, new) != new:
                raise ConfigError(
                    f"input shapes: '{old}' would be {sizes[old]} and {new}; it is one size, "
                    "wherever it stands"
                )
    return sizes, replaced


def _checked(value: Value, shape: Sequence[int]) -> Dims:
    """The dimensions of an input that the shape fits."""
    text = ",".join(map(str, shape))
    if not isinstance(value.type, TensorType):
        raise ConfigError(f"input shapes: '{value.name}' is {value.type}, which has no shape")
    if any(size < AS_IT_IS for size in shape):
        raise ConfigError(
            f"input shapes: {value.name}:{text} has a negative size; -1 leaves a size as it is"
        )
    old = _dims(value) or (None,) * len(shape)
    if len(old) != len(shape):
        declared = ", ".join("?" if dim is None else str(dim) for dim in old)
        raise ConfigError(
            f"input shapes: {value.name}:{text} has {len(shape)} sizes; expected {len(old)}, "
            f"since the input is [{declared}]"
        )
    return old


def _apply(
    model: Model, shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int], replaced: bool
) -> None:
    for value in _inputs(model):
        if (shape := shapes.get(str(value.name))) is not None:
            old = _dims(value) or (None,) * len(shape)
            value.shape = Shape(
                tuple(o if n == AS_IT_IS else n for o, n in zip(old, shape, strict=True))
            )
    inputs = set(_inputs(model))
    for scope in scope_tree(model.graph):
        for value in defined(scope):
            if replaced and value not in inputs and value.const_value is None:
                value.shape = None
            elif (dims := _dims(value)) is not None:
                value.shape = Shape(tuple(_sized(dim, sizes) for dim in dims))
    known = infer_types(model)
    for value in model.graph.outputs:
        _refine(value, known.get(str(value.name)))


def _sized(dim: int | str | None, sizes: Mapping[str, int]) -> int | str | None:
    return sizes.get(dim, dim) if isinstance(dim, str) else dim


def _refine(value: Value, known: Inferred | None) -> None:
    """Numbers that inference finds replace what an output is declared to be."""
    if known is None or known.shape is None or not isinstance(value.type, TensorType):
        return
    old = _dims(value)
    if old is None or len(old) != len(known.shape):
        old = (None,) * len(known.shape)
    dims = (new if isinstance(new, int) else was for was, new in zip(old, known.shape, strict=True))
    value.shape = Shape(tuple(dims))


def _inputs(model: Model) -> Iterator[Value]:
    return (value for value in model.graph.inputs if LISTED_INPUT not in value.meta)


def _dims(value: Value) -> Dims | None:
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def _contradiction(model: Model) -> str:
    """What ONNX's inference has against the shapes of the inputs; nothing where it has none."""
    try:
        with light_proto(model) as light:
            del light.proto.graph.value_info[:]
            for output in light.proto.graph.output:
                output.type.tensor_type.ClearField("shape")
            onnx.shape_inference.infer_shapes(light.proto, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ModelError, ValueError, RuntimeError) as error:
        return one_line(str(error))
    return ""
