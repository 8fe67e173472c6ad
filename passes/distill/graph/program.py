"""A model as a straight line of torch functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from onnxslim import ir
from onnxslim.ir import Model, Node
from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.call import Unsupported
from onnxslim.passes.distill.graph.convert import attributes_of, to_torch
from onnxslim.passes.distill.graph.fuse import fused
from onnxslim.passes.distill.graph.step import Step
from onnxslim.passes.distill.graph.table import OPS

Values = Mapping[str, Tensor]


class StepFailed(Exception):
    """A node that torch could not compute: its first output, and why."""

    def __init__(self, output: str, reason: str) -> None:
        super().__init__(reason)
        self.output = output
        self.reason = reason


class Program:
    """The main graph of a model in torch, from its inputs and from `borders` to its outputs.

    `left_out` are first outputs of nodes that torch does not compute, with the reason: what the
    rest reads of them is in `borders` and must be fed as inputs are. So are nodes without an entry
    in the table. All floats have one type, `dtype`.
    """

    def __init__(
        self,
        model: Model,
        left_out: Mapping[str, str] | None = None,
        dtype: Any = None,
        device: str = "cpu",
    ) -> None:
        self.dtype = torch.float32 if dtype is None else dtype
        self.device = device
        self.left_out = dict(left_out or {})
        self.outputs = tuple(str(v.name) for v in model.graph.outputs)
        self.inputs = tuple(str(v.name) for v in model.graph.inputs if not ir.is_fixed(v))
        self.nodes = {str(n.outputs[0].name): n for n in model.graph if n.outputs}
        steps = [self._step(model, node) for node in model.graph]
        self.steps = self._needed([step for step in steps if step is not None])
        self.constants = self._constants(model)
        made = {name for step in self.steps for name in step.outputs}
        known = made | set(self.constants) | set(self.inputs)
        read = [n for step in self.steps for n in step.inputs if n is not None]
        self.borders = tuple(dict.fromkeys(n for n in (*read, *self.outputs) if n not in known))

    def _step(self, model: Model, node: Node) -> Step | None:
        name, op = str(node.outputs[0].name), ir.op(node)
        function = OPS.get(op)
        if function is None:
            self.left_out.setdefault(name, "no gradient is known for this operator")
        if function is None or name in self.left_out:
            return None
        try:
            attributes = attributes_of(node, self.dtype, self.device)
        except Unsupported as reason:
            self.left_out[name] = str(reason)
            return None
        inputs = tuple(None if v is None or not v.name else str(v.name) for v in node.inputs)
        outputs = list(node.outputs)
        while len(outputs) > 1 and not outputs[-1].uses() and not outputs[-1].is_graph_output():
            outputs.pop()
        version = node.version or model.opset_imports.get(node.domain, 1)
        return Step(function, op, inputs, tuple(str(v.name) for v in outputs), attributes, version)

    def _needed(self, steps: Sequence[Step]) -> list[Step]:
        """The steps that an output depends on, through what torch computes."""
        wanted, kept = set(self.outputs), list[Step]()
        for step in reversed(steps):
            if wanted.intersection(step.outputs):
                kept.append(step)
                wanted.update(name for name in step.inputs if name is not None)
        return kept[::-1]

    def _constants(self, model: Model) -> dict[str, Tensor]:
        read = {name for step in self.steps for name in step.inputs}
        found: dict[str, Tensor] = {}
        for name, value in model.graph.initializers.items():
            if name in read or name in self.outputs:
                array = ir.array(value)
                if array is not None:
                    found[str(name)] = to_torch(array, self.dtype, self.device)
        return found

    def fold(self, varying: Collection[str]) -> None:
        """Compute once what depends on constants alone, of which those in `varying` will change,
        and make one step of a QuantizeLinear and the DequantizeLinear after it."""
        changing, left = set(varying), list[Step]()
        values = dict(self.constants)
        with torch.no_grad():
            for step in self.steps:
                names = [name for name in step.inputs if name is not None]
                fixed = all(name in values and name not in changing for name in names)
                if not fixed or changing.intersection(step.outputs):
                    left.append(step)
                    continue
                values.update(zip(step.outputs, step.run(values, self.dtype), strict=False))
        left = fused(left, values, self.outputs)
        read = {name for step in left for name in step.inputs} | set(self.outputs)
        self.steps, self.constants = left, {k: v for k, v in values.items() if k in read}

    def run(
        self,
        feed: Values,
        given: Values | None = None,
        wanted: Sequence[str] | None = None,
        cuts: Collection[str] = (),
    ) -> dict[str, Tensor]:
        """Values by name, of the outputs where `wanted` names none.

        `feed` holds inputs and borders; `given` replaces constants and results of nodes. What is
        computed from a value in `cuts` sends no gradient back through it.

        Raises:
            StepFailed: torch cannot compute a node.
        """
        given = given or {}
        values: dict[str, Tensor] = {**self.constants, **feed, **given}
        results = dict.fromkeys(self.outputs if wanted is None else wanted)
        for step in self.steps:
            if step.outputs[0] in given:
                continue
            try:
                made = step.run(values, self.dtype)
            except (Unsupported, RuntimeError, ValueError, TypeError, IndexError, KeyError) as e:
                raise StepFailed(step.outputs[0], f"{step.op}: {_line(e)}") from e
            for name, value in zip(step.outputs, made, strict=False):
                values[name] = value
                if name in results:
                    results[name] = value
                if name in cuts:
                    values[name] = value.detach()
        return {name: values[name] if value is None else value for name, value in results.items()}


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:160] if isinstance(error, Unsupported) else f"{type(error).__name__}: {text[:160]}"
