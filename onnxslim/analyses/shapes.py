"""Shapes and element types of values: inferred, and completed by those seen in a real run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from onnxslim import ir
from onnxslim.analyses.seen import observed_shapes
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import DataType, Inferred, Model, Value
from onnxslim.pipeline.analysis import Analysis, AnalysisManager, Aspect
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed

Dim = int | str | None
"""A size, the name of one that varies, or None where nothing is known."""


@dataclass(frozen=True)
class ShapeTable:
    """What is known of the values of a model, by value or by name."""

    inferred: Mapping[str, Inferred]
    observed: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    reason: str = ""  # why nothing was observed, if so

    def shape(self, value: Value | str) -> tuple[Dim, ...] | None:
        """What holds for every input. None where not even the rank is known."""
        found = self.inferred.get(_name(value))
        return None if found is None else found.shape

    def static(self, value: Value | str) -> tuple[int, ...] | None:
        """The shape if all sizes hold for every input."""
        shape = self.shape(value)
        known = [] if shape is None else [d for d in shape if isinstance(d, int)]
        return None if shape is None or len(known) != len(shape) else tuple(known)

    def seen(self, value: Value | str) -> tuple[int, ...] | None:
        """The shape in a run of one sample: of the main graph only."""
        return self.observed.get(_name(value))

    def sizes(self, value: Value | str) -> tuple[int, ...] | None:
        """The shape as seen, else as it always is."""
        seen = self.seen(value)
        return self.static(value) if seen is None else seen

    def elements(self, value: Value | str) -> int | None:
        """How many elements a value has, from `sizes`."""
        sizes = self.sizes(value)
        return None if sizes is None else prod(sizes)

    def dtype(self, value: Value | str) -> DataType | None:
        """The element type."""
        found = self.inferred.get(_name(value))
        return None if found is None else found.dtype


@dataclass(frozen=True)
class StaticShapes(Analysis[ShapeTable]):
    """What inference knows (ONNX's own, with data propagation); the model is not run.

    What the model declares of inner values completes it where inference knows nothing, as for
    operators outside of the standard.
    """

    reads = Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS

    def compute(self, model: Model, analyses: AnalysisManager) -> ShapeTable:
        """Linear in nodes; weights are not read."""
        inferred = dict(ir.infer_types(model))
        for name, declared in _declared(model).items():
            known = inferred.get(name)
            if known is None or known.shape is None:
                dtype = declared.dtype if known is None or known.dtype is None else known.dtype
                inferred[name] = Inferred(dtype, declared.shape)
        return ShapeTable(inferred)


@dataclass(frozen=True)
class Shapes(Analysis[ShapeTable]):
    """`StaticShapes`, and the shapes of the main graph in a run of the first calibration sample.

    Without calibration data the sample is synthesized. A model that cannot be run is known by
    inference alone, and `reason` says why.
    """

    reads = Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS

    def compute(self, model: Model, analyses: AnalysisManager) -> ShapeTable:
        """One run of the model."""
        static = analyses.get(StaticShapes())
        try:
            feed = one_feed(model, analyses.env)
            seen = observed_shapes(model, feed, analyses.env.threads)
        except RuntimeUnavailable as error:
            return ShapeTable(static.inferred, reason=str(error))
        return ShapeTable(static.inferred, seen)


def one_feed(model: Model, env: Environment) -> Feed:
    """The first calibration sample, else one that is synthesized with the seed of the run."""
    if env.calib is not None and len(env.calib):
        return env.calib[0]
    from onnxslim.runtime.synthesize import synthesize

    return synthesize(model, 1, env.seed)[0]


def _name(value: Value | str) -> str:
    return value if isinstance(value, str) else str(value.name)


def _declared(model: Model) -> dict[str, Inferred]:
    found: dict[str, Inferred] = {}
    for scope in ir.scopes(model):
        initializers = scope.initializers.values() if isinstance(scope, ir.Graph) else ()
        results = (value for node in scope for value in node.outputs)
        for value in (*scope.inputs, *initializers, *results):
            if value.name and isinstance(value.type, ir.TensorType):
                found[value.name] = Inferred(value.dtype, _dims(value))
    return found


def _dims(value: Value) -> tuple[Dim, ...] | None:
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)
