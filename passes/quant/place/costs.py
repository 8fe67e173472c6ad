"""What each operator costs in float and in int8, and what lies on the borders between the two.

Measured: the profile of the whole float model and of the whole int8 model tell the time of each
operator where it runs. What follows an operator without being one (activations, operators that
are never integers) costs more in the int8 model where ONNX Runtime cannot fuse it behind a
DequantizeLinear, and less where integers absorb it; that is counted too. Conversions have a price
per element, whose scale is that of those seen in the int8 model.

Assumed, for targets that are not this machine: multiply-accumulates and elements, times constants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, log10

import numpy as np

from onnxslim import ir
from onnxslim.analyses.attribution import Attributed
from onnxslim.ir import Array, Node, Value
from onnxslim.passes.quant.place import precisions
from onnxslim.passes.quant.place.mixed_problem import Border, Choice, Need, Problem
from onnxslim.passes.quant.rewrite.apply import node_id
from onnxslim.passes.quant.rewrite.plan import edge_values
from onnxslim.passes.quant.rewrite.regions import Regions, activations
from onnxslim.targets.assumed import Assumed

FLOAT, INT8 = 0, 1
"""The choices of every operator, in this order; some have more (`precisions`)."""

STEPS = 48
"""Costs are rounded to so many steps per decade (5 % each), so that two runs differ less."""

CLEARLY = 1.05
"""How much faster float must be to count as faster: more than two measurements differ."""

Elements = Callable[[Value], int]

# nanoseconds per element and microseconds per tensor; of tensors with four dimensions, layouts
# change too: NCHW, in blocks of channels, or NHWC. Measured on one thread of an AMD EPYC (Zen 4).
_QUANTIZE = {True: (0.60, 9.0), False: (0.30, 3.0)}
_DEQUANTIZE = {True: (0.45, 9.0), False: (0.15, 3.0)}
_SCALES = 0.25, 4.0  # how far another machine may be from that one


@dataclass(frozen=True)
class Times:
    """Milliseconds by operator: in float, in int8 without conversions, and what an operator's
    result costs besides where it comes from integers and is read in float."""

    float_ms: Mapping[str, float]
    int8_ms: Mapping[str, float]
    after_ms: Mapping[str, float]
    conversions_ms: float | None = None  # of the int8 model; None where not measured

    @property
    def measured(self) -> bool:
        """Whether this machine was asked."""
        return self.conversions_ms is not None


@dataclass(frozen=True)
class Costs:
    """A problem for `mixed`, without noise: its operators, and the parts of it by name."""

    names: tuple[str, ...]  # of operators, in order
    problem: Problem
    measured: bool

    def with_noise(
        self,
        noise: Mapping[str, float],
        sizes: Mapping[str, float],
        rounding: Mapping[str, float] | None = None,
        each: Mapping[str, float] = precisions.FLOAT_NUMBERS,
    ) -> Problem:
        """The same with the noise of each operator in int8, that which rounding its weight to 4
        bits adds, and its size: how many numbers its weight has, times what `each` counts."""
        coarse = rounding or {}

        def known(name: str, choice: Choice) -> Choice:
            row = precisions.PRECISIONS[choice.precision]
            power = row.inputs * noise.get(name, 0.0) + row.rounding * coarse.get(name, 0.0)
            size = each.get(choice.precision, 0.0) * sizes.get(name, 0)
            return replace(choice, noise=power, size=size)

        operators = tuple(
            tuple(known(name, choice) for choice in choices)
            for name, choices in zip(self.names, self.problem.operators, strict=True)
        )
        return replace(self.problem, operators=operators)

    def with_alone(self, precision: str, ms: Mapping[str, float]) -> Costs:
        """The same with one more choice for some operators, the weight alone, and what it takes."""
        return self._with(
            {name: Choice(precision, _coarse(time * CLEARLY)) for name, time in ms.items()}
        )

    def with_narrow(self, names: Iterable[str]) -> Costs:
        """The same with weights of 4 bits for some operators, as fast as those of 8."""
        rows = dict(zip(self.names, self.problem.operators, strict=True))
        return self._with(
            {name: replace(rows[name][INT8], precision=precisions.NARROW) for name in names}
        )

    def _with(self, more: Mapping[str, Choice]) -> Costs:
        operators = tuple(
            (*choices, more[name]) if name in more else choices
            for name, choices in zip(self.names, self.problem.operators, strict=True)
        )
        return replace(self, problem=replace(self.problem, operators=operators))

    def slowed(self, factor: float) -> Costs:
        """The same with everything in float so many times slower."""
        operators = tuple(
            (replace(choices[FLOAT], ms=choices[FLOAT].ms * factor), *choices[INT8:])
            for choices in self.problem.operators
        )
        return replace(self, problem=replace(self.problem, operators=operators))

    def chosen(
        self, excluded: Collection[str], alone: Collection[str] = (), coarse: Collection[str] = ()
    ) -> tuple[int, ...]:
        """The choice of each operator where these are not static int8, of some of them the weight
        alone is integers, and some weights have 4 bits."""
        both = {
            True: (precisions.ALONE_4, precisions.NARROW),
            False: (precisions.ALONE, precisions.INT8),
        }

        def index(name: str, choices: Sequence[Choice]) -> int:
            codes, integers = both[name in coarse]
            wanted = codes if name in alone else precisions.FLOAT if name in excluded else integers
            found = (i for i, choice in enumerate(choices) if choice.precision == wanted)
            return next(found, INT8)

        return tuple(map(index, self.names, self.problem.operators))

    def picked(self, chosen: Sequence[int], *wanted: str) -> frozenset[str]:
        """The operators with one of these precisions."""
        rows = zip(self.names, self.problem.picked(chosen), strict=True)
        return frozenset(name for name, choice in rows if choice.precision in wanted)

    def having(self, precision: str) -> frozenset[str]:
        """The operators for which this is a choice."""
        rows = zip(self.names, self.problem.operators, strict=True)
        return frozenset(n for n, row in rows if any(c.precision == precision for c in row))

    def floats(self, chosen: Sequence[int]) -> frozenset[str]:
        """The operators that stay in float."""
        return self.picked(chosen, precisions.FLOAT)

    def ratio(self, name: str) -> float:
        """Time of one operator in int8 over that in float, without what lies around it."""
        in_float, int8, *_ = self.problem.operators[self.names.index(name)]
        return int8.ms * CLEARLY / in_float.ms if in_float.ms > 0 else inf


def measured_times(in_float: Attributed, in_int8: Attributed, names: Iterable[str]) -> Times:
    """From the profiles of the whole float model and of the whole int8 model."""
    float_ms: dict[str, float] = {}
    after: dict[str, float] = {}
    for name in names:
        more = in_int8.after.get(name, 0.0) - in_float.after.get(name, 0.0)
        layout = in_float.converting.get(name, 0.0)
        float_ms[name] = in_float.own.get(name, 0.0) + layout + max(-more, 0.0)
        after[name] = max(more, 0.0)
    return Times(float_ms, in_int8.own, after, sum(in_int8.converting.values()))


def to_arrays(times: Times) -> dict[str, Array]:
    """For a file; `from_arrays` reads it again."""
    tables = (times.float_ms, times.int8_ms, times.after_ms)
    names = sorted({name for table in tables for name in table})
    rows = [[table.get(name, 0.0) for name in names] for table in tables]
    conversions = np.array(times.conversions_ms or 0.0)
    return {"names": np.array(names, np.str_), "ms": np.array(rows), "conversions": conversions}


def from_arrays(arrays: Mapping[str, Array]) -> Times:
    """Measured times from what `to_arrays` made."""
    names = arrays["names"].tolist()
    in_float, int8, after = (dict(zip(names, row, strict=True)) for row in arrays["ms"].tolist())
    return Times(in_float, int8, after, float(arrays["conversions"]))


@dataclass(frozen=True)
class Work:
    """How much there is to do, by operator: multiply-accumulates, and elements of the result."""

    macs: Mapping[str, int]
    elements: Mapping[str, int]

    def ms(self, gmacs: float, ns: float) -> dict[str, float]:
        """At a rate of 1e9 multiply-accumulates a second, and so long for each element."""
        every = self.elements.items()
        return {n: self.macs.get(n, 0) / gmacs / 1e6 + count * ns / 1e6 for n, count in every}


def assumed_times(work: Work, assumed: Assumed) -> Times:
    """From the size of the work."""
    in_float = work.ms(assumed.float_gmacs, assumed.float_ns)
    return Times(in_float, work.ms(assumed.int8_gmacs, assumed.int8_ns), {})


def assumed_alone_ms(work: Work, assumed: Assumed, bits: int) -> Mapping[str, float]:
    """Of layers of which the weight alone is in codes of so many bits."""
    return work.ms(assumed.codes_gmacs[bits], assumed.float_ns)


def costs_of(regions: Regions, times: Times, elements: Elements) -> Costs:
    """The costs of the operators that could be int8, in the order of the graph.

    `elements` says how many a tensor has.
    """
    nodes = list(regions.nodes)
    index = {node: i for i, node in enumerate(nodes)}
    pairs = tuple(_pair(regions, node, times) for node in nodes)
    borders = [_border(regions, value, index, times, elements) for value in edge_values(regions)]
    names = tuple(map(node_id, nodes))
    scale = _scale(Problem(pairs, tuple(borders)), times)
    rounded = tuple(_rounded(border, scale) for border in borders)
    needs = tuple(_needs(regions, index))
    return Costs(names, Problem(pairs, rounded, needs), times.measured)


def _pair(regions: Regions, node: Node, times: Times) -> tuple[Choice, Choice]:
    name = node_id(node)
    writes = regions.nodes[node].output != "float"
    in_float = Choice(precisions.FLOAT, _coarse(times.float_ms.get(name, 0.0) * CLEARLY))
    int8 = Choice(precisions.INT8, _coarse(times.int8_ms.get(name, 0.0)), reads=True, writes=writes)
    return in_float, int8


def _border(
    regions: Regions, value: Value, index: Mapping[Node, int], times: Times, elements: Elements
) -> Border:
    maker = regions.maker(value)
    readers = [node for node, _ in regions.readers(value)]
    rank4 = any(ir.op(node) in ("Conv", "ConvTranspose") for node in regions.around(value))
    count = elements(value)
    quantize, dequantize = (_ms(price[rank4], count) for price in (_QUANTIZE, _DEQUANTIZE))
    if maker is not None and regions.nodes[maker].output == "optional":
        dequantize = 0.0  # its kernel writes either
    more = 0.0 if maker is None else times.after_ms.get(node_id(maker), 0.0)
    also_float = value.is_graph_output() or len(value.uses()) > len(readers)
    return Border(
        None if maker is None else index[maker],
        tuple(dict.fromkeys(index[node] for node in readers)),
        quantize,
        dequantize + more,
        also_float,
    )


def _needs(regions: Regions, index: Mapping[Node, int]) -> Iterator[Need]:
    """What `find_regions` asks of an operator that is not worth it by itself: every input comes as
    integers or is quantized for a linear layer anyway, and an operator in int8 reads its output."""
    for node, rule in regions.nodes.items():
        if rule.role in ("linear", "residual"):
            continue
        outs = [regions.chain_of(value).out for value in node.outputs]
        wanting = [reader for out in outs for reader, _ in regions.readers(out)]
        yield Need(index[node], tuple(dict.fromkeys(index[n] for n in wanting)))
        for i in activations(node, rule):
            value = node.inputs[i]
            if value is not None and ir.constant(value) is None:
                yield Need(index[node], tuple(_feeding(regions, value, index)))


def _feeding(regions: Regions, value: Value, index: Mapping[Node, int]) -> Iterator[int]:
    maker = regions.maker(value)
    if maker is not None and regions.leaves_integers(maker):
        yield index[maker]
    for node, _ in regions.readers(value):
        if regions.nodes[node].role in ("linear", "residual"):
            yield index[node]


def _ms(price: tuple[float, float], count: int) -> float:
    return price[0] * count / 1e6 + price[1] / 1e3


def _scale(problem: Problem, times: Times) -> float:
    """Of the conversions that the int8 model has, the time measured over that assumed."""
    whole = (INT8,) * len(problem)
    extra = sum(times.after_ms.values())
    assumed = sum(problem.border_ms(border, whole) for border in problem.borders) - extra
    if times.conversions_ms is None or assumed <= 0:
        return 1.0
    low, high = _SCALES
    return min(max(times.conversions_ms / assumed, low), high)


def _rounded(border: Border, scale: float) -> Border:
    quantize, dequantize = (
        _coarse(ms * scale) for ms in (border.quantize_ms, border.dequantize_ms)
    )
    return replace(border, quantize_ms=quantize, dequantize_ms=dequantize)


def _coarse(ms: float) -> float:
    """Rounded to a step of the logarithmic grid."""
    return 10 ** (round(log10(ms) * STEPS) / STEPS) if ms > 0 else 0.0
