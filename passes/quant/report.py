"""What the quant pass did, in the words and numbers of a PassResult."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.passes.quant.audit.coverage import conversions, coverage
from onnxslim.passes.quant.place.fitted import Fitted
from onnxslim.passes.quant.rewrite.plan import Plan
from onnxslim.passes.quant.static import Static
from onnxslim.passes.quant.weights.layers import FEW_BITS, LayerPlan
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Declined, Layer, PassResult
from onnxslim.runtime.samples import Feed

Stats = dict[str, int | float | str]


@dataclass(frozen=True)
class Done:
    """All that was done to a model."""

    folded: int = 0
    equal: Fitted = field(default_factory=Fitted)
    blind: str = ""  # what no calibration samples meant, if there were none
    static: Static | None = None
    layers: tuple[Layer, ...] = ()  # rows of what is not static
    refused: tuple[Declined, ...] = ()
    remarks: tuple[str, ...] = ()  # sentences of the schemes
    own: tuple[str, ...] = ()  # operators of one runtime alone that were written
    timed_on: Feed | None = None  # see PassResult
    db: float | None = None  # of the outputs, where weights alone were quantized
    packed: int = 0  # numbers that are stored in 4 bits

    @property
    def count(self) -> int:
        """Layers that were changed."""
        return len(self.layers) + self.changed_static

    @property
    def changed_static(self) -> int:
        """Of them, those that the static step changed."""
        return len(self._alone) + self._static_layers

    @property
    def _alone(self) -> tuple[Layer, ...]:
        """Layers of which the weight alone is integers, in a model that is static otherwise."""
        plan = None if self.static is None else self.static.plan
        return () if plan is None else plan.alone

    @property
    def int8(self) -> int:
        """Layers with integer weights."""
        return sum("int8" in row.action for row in self.layers) + self._static_layers

    @property
    def _static_layers(self) -> int:
        plan = None if self.static is None else self.static.plan
        return 0 if plan is None else len(plan.layers)

    @property
    def declined(self) -> tuple[Declined, ...]:
        """What stayed in float, each node once."""
        static = () if self.static is None else self.static.reasons
        handled = {layer.node for layer in (*self.layers, *self._alone)}
        found = {d.node: d for d in (*static, *self.refused) if d.node not in handled}
        return tuple(found.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Plain sentences for the user."""
        if not self.count and not self.declined:
            return ("quant found no Conv, Gemm or MatMul",)
        remarks = self.remarks
        if self.blind and not remarks:
            remarks = (f"quant had no calibration samples: {self.blind}; give --calib for more",)
        if not self.own:
            return remarks
        names = ", ".join(sorted(set(self.own)))
        return (*remarks, f"quant wrote {names}, which ONNX Runtime alone reads: {PORTABLE}")


PORTABLE = "quant{portable=true} keeps to standard operators, at some cost of speed"


def result_of(done: Done, before: Model) -> PassResult:
    """The result of a pass that changed the model, which was `before`."""
    layers = list(done.layers)
    stats: Stats = {"int8_layers": done.int8, "folded": done.folded}
    if done.equal.equalized:
        stats["equalized"] = done.equal.equalized
    if done.equal.absorbed:
        stats["absorbed"] = done.equal.absorbed
    if done.equal.shifted:
        stats["shifted"] = done.equal.shifted
    if done.static is not None and done.static.plan is not None and done.changed_static:
        stats.update(_static_stats(done.static, done.static.plan))
        stats.update(_bits(done.static.plan, done.packed))
        layers = [*_rows(done.static, done.static.plan), *layers]
    elif done.db is not None:
        stats["output_db"] = round(done.db, 2)
    return PassResult(
        changed=Aspect.ALL,
        stats=stats,
        declined=done.declined,
        layers=tuple(layers),
        notes=(*done.notes, *_account(done, layers, before)),
        timed_on=done.timed_on,
    )


def _account(done: Done, layers: Sequence[Layer], before: Model) -> Iterator[str]:
    """What became integers and what did not; nothing of schemes of 16-bit floats."""
    if done.int8:
        yield coverage(before, layers, done.declined, _numbers(done))
    if done.static is not None and done.static.audit is not None:
        found = conversions(done.static.audit)
        yield from () if found is None else (found,)


def _numbers(done: Done) -> str:
    plan = None if done.static is None else done.static.plan
    layers = () if plan is None else plan.layers.values()
    return "fp8" if any(layer.weight.numbers.is_float for layer in layers) else "int8"


def _static_stats(static: Static, plan: Plan) -> Stats:
    choices = static.choices
    stats: Stats = {
        "int8_nodes": len(plan.regions.nodes),
        "quantized_tensors": len(plan.edges),
        "absorbed_affine": sum(not e.chain.affine.trivial for e in plan.edges.values()),
        "smoothed": sum(e.smooth is not None for e in plan.edges.values()),
        "ranges": choices.method,
        "trials": static.trials,
    }
    if static.db is not None:
        stats["output_db"] = round(static.db, 2)
    if static.audit is not None:
        stats["fused_kernels"] = static.audit.int8_kernels
        stats["q_and_dq_left"] = static.audit.q_and_dq
    operators = Counter(ir.op(node) for node in plan.regions.nodes)
    stats["operators"] = " ".join(f"{op}:{count}" for op, count in sorted(operators.items()))
    return stats


def _bits(plan: Plan, packed: int) -> Stats:
    """Where some weights have few bits: what share of the weights has how many."""
    sizes = Counter[int]()
    for layer in plan.layers.values():
        sizes[layer.weight.bits] += layer.weight.values.size
    if min(sizes, default=8) > FEW_BITS:
        return {}
    shares = {bits: size / sizes.total() for bits, size in sorted(sizes.items())}
    text = " ".join(f"{bits}:{share:.2%}" for bits, share in shares.items())
    return {"weight_bits": text, "stored_in_4_bits": packed}


def _rows(static: Static, plan: Plan) -> Iterator[Layer]:
    yield from plan.alone
    for node, layer in plan.layers.items():
        yield replace(_row(layer), predicted_db=static.predicted.get(node))


def _row(plan: LayerPlan) -> Layer:
    node, channels = plan.layer.node, len(plan.weight.scale)
    few = plan.weight.bits <= FEW_BITS
    kind = f"{plan.weight.bits}-bit" if few else plan.weight.numbers.dtype
    return Layer(
        ir.label(node),
        ir.op(node),
        f"{kind} weights ({channels} channels), {plan.x.numbers.dtype} input",
    )
