"""Which constants of a student are trained, and what torch computes with in their place.

Floats are trained as they are. A quantized weight is trained as a float that is rounded to its grid
in every step, with a straight-through gradient, and its scale with it; scales are base * exp(t), so
that they stay positive, and activation scales that are equal stay equal, because runtimes want them
so around pooling and reshaping. Zero points and the bits of codes stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model, Node, Value
from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.convert import quick
from onnxslim.passes.distill.graph.ops.quantization import codes, fake_quantized, spread
from onnxslim.passes.distill.graph.program import Program
from onnxslim.passes.distill.grids import Grid, codes_of, grid_of

TRAINED: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "com.microsoft::FusedConv": (1, 2),
    "com.microsoft::FusedMatMul": (0, 1),
    "com.microsoft::MatMulIntegerToFloat": (1, 6),
    "com.microsoft::SkipLayerNormalization": (2, 3, 4),
    "com.microsoft::SkipSimplifiedLayerNormalization": (2, 3),
}
"""The inputs of operators that hold weights, biases, gains and offsets."""

_LINEAR = frozenset(
    {
        "Conv", "ConvTranspose", "Gemm", "MatMul",
        "com.microsoft::FusedConv", "com.microsoft::FusedMatMul",
    }
)  # fmt: skip
_MOVING = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True)
class Quantized:
    """A quantized weight: torch's value `name` is made from a float, the scale `scale` and what
    the grid allows. With `raw` it is the codes themselves, for operators that read integers."""

    name: str
    codes: str  # the initializer of the codes
    scale: str
    grid: Grid
    axis: int
    block: int
    raw: bool = False


@dataclass(frozen=True)
class Bias:
    """An int32 bias; its scale is the product of two others where it was so from the start."""

    name: str
    codes: str
    scale: str
    grid: Grid
    factors: tuple[str, str] | None


@dataclass
class Found:
    """The trainable constants of a model, by the names of values."""

    floats: list[str] = field(default_factory=list[str])
    quantized: dict[str, Quantized] = field(default_factory=dict[str, Quantized])
    biases: dict[str, Bias] = field(default_factory=dict[str, Bias])
    scales: list[str] = field(default_factory=list[str])  # of activations
    frozen: list[str] = field(default_factory=list[str])

    @property
    def count(self) -> int:
        """How many constants there are to train."""
        return len(self.floats) + len(self.quantized) + len(self.biases)


def find(model: Model, program: Program) -> Found:
    """The constants that may be trained: those whose effect torch computes as a whole."""
    found, behind = Found(), _behind(program)
    for step in program.steps:
        node = program.nodes[step.outputs[0]]
        for index in _slots(node):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None:
                _take(found, node, value, index, behind)
        if step.op == "QuantizeLinear" and step.inputs[1] is not None:
            scale = node.inputs[1]
            name = str(step.inputs[1])
            if scale is not None and ir.is_fixed(scale) and name not in behind:
                found.scales.append(name)
    found.floats = list(dict.fromkeys(found.floats))
    found.scales = list(dict.fromkeys(found.scales))
    found.frozen = list(dict.fromkeys(found.frozen))
    return found


def _slots(node: Node) -> Iterator[int]:
    op = ir.op(node)
    yield from TRAINED.get(op, ())
    if op == "Add":  # the bias of a layer
        for index in (0, 1):
            other = node.inputs[1 - index]
            maker = None if other is None else other.producer()
            if maker is not None and ir.op(maker) in _LINEAR:
                yield index


def _take(found: Found, node: Node, value: Value, index: int, behind: frozenset[str]) -> None:
    maker = value.producer()
    for _ in range(8):
        if maker is None or ir.op(maker) not in _MOVING or maker.inputs[0] is None:
            break
        value, maker = maker.inputs[0], maker.inputs[0].producer()
    name = str(value.name)
    if maker is not None:
        if ir.op(maker) == "DequantizeLinear" and grid_of(maker) is not None:
            _take_quantized(found, node, maker, behind)
        return
    tensor = value.const_value if ir.is_fixed(value) else None
    if tensor is None or int(np.prod(tuple(tensor.shape), dtype=np.int64)) < 2:  # type: ignore[arg-type]
        return
    if name in behind:
        found.frozen.append(name)
    elif tensor.dtype.is_floating_point() and tensor.dtype.itemsize >= 2:
        found.floats.append(name)
    elif ir.op(node) == "com.microsoft::MatMulIntegerToFloat" and index == 1:
        _take_raw(found, node, name)


def _take_quantized(found: Found, node: Node, maker: Node, behind: frozenset[str]) -> None:
    grid, name, source = grid_of(maker), str(maker.outputs[0].name), codes_of(maker)
    scale = maker.inputs[1]
    if grid is None or source is None or scale is None or not ir.is_fixed(scale):
        return
    if not ir.is_fixed(source):
        return
    own = str(source.name), str(scale.name)
    if name in behind or own[0] in behind:
        found.frozen.append(name)
    elif grid.codes.dtype == np.int32:
        found.biases[name] = Bias(name, *own, grid, _factors(node, grid))
    else:
        axis, block = ir.attribute(maker, "axis", 1), ir.attribute(maker, "block_size", 0)
        found.quantized[name] = Quantized(name, *own, grid, axis, block)


def _take_raw(found: Found, node: Node, name: str) -> None:
    scale, held = node.inputs[3], ir.array(node.inputs[1])
    zero = node.inputs[5] if len(node.inputs) > 5 else None
    step = ir.array(scale)
    if scale is None or step is None or held is None or not ir.is_fixed(scale):
        return
    shift = ir.array(zero)
    if zero is not None and shift is None:
        return
    grid = Grid.of(held, step, np.zeros(1) if shift is None else shift, ir.constant(node.inputs[1]))
    if grid is not None:
        found.quantized[name] = Quantized(name, name, str(scale.name), grid, -1, 0, raw=True)


def _factors(node: Node, grid: Grid) -> tuple[str, str] | None:
    """The scales of input and weight, where their product is the scale of the bias."""
    if ir.op(node) not in ("Conv", "Gemm"):
        return None
    scales: list[Value] = []
    for index in (0, 1):
        value = node.inputs[index]
        maker = None if value is None else value.producer()
        scale = (
            maker.inputs[1] if maker is not None and ir.op(maker) == "DequantizeLinear" else None
        )
        if scale is None or not ir.is_fixed(scale):
            return None
        scales.append(scale)
    one, two = (ir.array(scale) for scale in scales)
    if one is None or two is None or (one * two).size not in (1, grid.step.size):
        return None
    product = np.broadcast_to((one * two).ravel().astype(np.float64), grid.step.shape)
    near = np.allclose(product, grid.step, rtol=1e-3, atol=0)
    return (str(scales[0].name), str(scales[1].name)) if near else None


def _behind(program: Program) -> frozenset[str]:
    """The values that a node outside of torch depends on, directly or not."""
    seen, stack = set[str](), [program.nodes[name] for name in program.left_out]
    visited = set[int]()
    while stack:
        node = stack.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        inner = [n for graph in ir.subgraphs(node) for s in ir.scope_tree(graph) for n in s]
        for value in [v for n in (node, *inner) for v in n.inputs if v is not None]:
            seen.add(str(value.name))
            maker = value.producer()
            if maker is not None and str(maker.outputs[0].name) in program.nodes:
                stack.append(maker)
    return frozenset(seen)


class Weights:
    """The leaves that are trained, and the values that torch computes with."""

    def __init__(self, model: Model, found: Found, dtype: Any, device: str) -> None:
        self.found = found
        self._dtype, self._device = dtype, device
        self._base = self._scales(model)
        self._twin = self._twins(model)
        names = sorted(set(self._twin.values()))
        zeros = {n: torch.zeros_like(self._base[n]) for n in names}
        self.leaves: dict[str, Tensor] = {f"scale {n}": t for n, t in zeros.items()}
        for name in found.floats:
            self.leaves[f"float {name}"] = self._tensor(ir.array(model.graph.initializers[name]))
        grids = {name: own.grid for name, own in found.quantized.items()}
        grids |= {name: own.grid for name, own in found.biases.items()}
        for name, grid in grids.items():
            self.leaves[f"float {name}"] = self._tensor(grid.values())
        for leaf in self.leaves.values():
            leaf.requires_grad_(True)
        self._ends = {
            name: tuple(self._tensor(a) for a in (own.grid.low, own.grid.high, own.grid.zero))
            for name, own in found.quantized.items()
        }

    def _tensor(self, array: Array | None) -> Tensor:
        assert array is not None
        wide = array.astype(np.float64)
        return quick(torch.tensor(wide, dtype=self._dtype, device=self._device))

    def _scales(self, model: Model) -> dict[str, Tensor]:
        own = [q.scale for q in self.found.quantized.values()]
        names = dict.fromkeys((*self.found.scales, *own))
        return {n: self._tensor(ir.array(model.graph.initializers[n])) for n in names}

    def _twins(self, model: Model) -> dict[str, str]:
        """Scale -> the scale whose leaf it shares: activation scales that are equal are one, and
        what dequantizes an activation has the scale that quantized it."""
        twins, by_value = {n: n for n in self._base}, dict[bytes, str]()
        for name in self.found.scales:
            key = self._base[name].cpu().numpy().tobytes()
            twins[name] = by_value.setdefault(key, name)
        held = set(self._base)
        for node in model.graph:
            if ir.op(node) != "DequantizeLinear" or node.inputs[1] is None:
                continue
            name, array = str(node.inputs[1].name), ir.array(node.inputs[1])
            if name in held or array is None or ir.constant(node.inputs[0]) is not None:
                continue
            key = self._tensor(array).cpu().numpy().tobytes()
            if key in by_value and ir.is_fixed(node.inputs[1]):
                self._base[name] = self._tensor(array)
                twins[name] = by_value[key]
        return twins

    def scale(self, name: str) -> Tensor:
        """A scale as it now is."""
        return self._base[name] * torch.exp(self.leaves[f"scale {self._twin[name]}"])

    def given(self) -> dict[str, Tensor]:
        """What `Program.run` computes with in place of the model's constants."""
        values = {name: self.scale(name) for name in self._twin}
        for name in (*self.found.floats, *self.found.biases):
            values[name] = self.leaves[f"float {name}"]
        for name, own in self.found.quantized.items():
            leaf = self.leaves[f"float {name}"]
            low, high, zero = self._ends[name]
            step = spread(values[own.scale], leaf.shape, own.axis, own.block)
            if own.raw:
                values[name] = codes(leaf, step, 0.0, low, high) + zero
            else:
                values[name] = fake_quantized(leaf, step, low, high)
        return values

    def state(self) -> dict[str, Array]:
        """A copy of all leaves."""
        return {name: leaf.detach().cpu().numpy().copy() for name, leaf in self.leaves.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put a copy back."""
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(torch.as_tensor(state[name], dtype=self._dtype, device=self._device))

    def write(self, model: Model) -> None:
        """Give the model the trained constants: the same tensors, types and grids as before."""
        editor, own = Editor(model), dict(model.graph.initializers)
        for name in self._twin:
            _replace(editor, own[name], self._numpy(self.scale(name)))
        for name in self.found.floats:
            _replace(editor, own[name], self._numpy(self.leaves[f"float {name}"]))
        for name, quantized in self.found.quantized.items():
            scale = ir.array(own[quantized.scale])
            assert scale is not None
            leaf = self._numpy(self.leaves[f"float {name}"])
            grid = quantized.grid.scaled(scale, quantized.axis, quantized.block)
            editor.replace_initializer(own[quantized.codes], grid.nearest(leaf))
        for name, bias in self.found.biases.items():
            self._write_bias(editor, own, name, bias)

    def _write_bias(self, editor: Editor, own: Mapping[str, Value], name: str, bias: Bias) -> None:
        grid = bias.grid
        if bias.factors is not None:
            one, two = (ir.array(own[factor]) for factor in bias.factors)
            before = ir.array(own[bias.scale])
            assert one is not None
            assert two is not None
            assert before is not None
            scale = np.broadcast_to((one * two).reshape(-1), before.shape or (1,))
            _replace(editor, own[bias.scale], scale.reshape(before.shape))
            grid = grid.scaled(scale, 0, 0)
        leaf = self._numpy(self.leaves[f"float {name}"])
        editor.replace_initializer(own[bias.codes], grid.nearest(leaf))

    def _numpy(self, tensor: Tensor) -> Array:
        array: Array = tensor.detach().cpu().numpy().astype(np.float64)
        return array


def _replace(editor: Editor, value: Value, content: Array) -> None:
    before = ir.array(value)
    assert before is not None
    new = content.astype(before.dtype).reshape(before.shape)
    if not np.array_equal(new, before):
        editor.replace_initializer(value, new)
