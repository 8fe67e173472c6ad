"""Operators that work element by element, with what they make of known integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np

from onnxslim.analyses.facts import dims
from onnxslim.analyses.facts.dims import Dim
from onnxslim.analyses.facts.fact import (
    LIMITS,
    MOST_ELEMENTS,
    Content,
    Contradiction,
    Fact,
    Rule,
    Rules,
    Shape,
    Site,
    grid,
    numbers,
)
from onnxslim.ir import DataType

Scalar = Callable[..., "Dim | None"]
"""What an operator makes of elements; None where that is not known."""


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of an elementwise result, after numpy's rules. Raises Contradiction."""
    first = shapes[0]
    if all(shape == first for shape in shapes[1:]):
        return first
    result: list[Dim] = []
    for column in zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        size = dims.broadcast(column)
        if size is None:
            raise Contradiction
        result.append(size)
    return tuple(reversed(result))


def _shape_of(site: Site, count: int) -> Shape | None:
    shapes = [site.shape(i) for i in range(count)]
    known = [shape for shape in shapes if shape is not None]
    return broadcast(known) if known and len(known) == count else None


def content_of(
    site: Site, dtype: DataType | None, shape: Shape | None, f: Scalar
) -> Content | None:
    """The elements of the result, where something is known of an input and there are few."""
    sizes = numbers(shape)
    if sizes is None or dtype is None or dtype not in LIMITS or int(np.prod(sizes)) > MOST_ELEMENTS:
        return None
    if all(fact is None or fact.content is None for fact in site.inputs):
        return None
    columns: list[Sequence[Dim]] = []
    for index in range(len(site.inputs)):
        if site.elements(index) is None:
            return None
        fact = site.fact(index)
        cells = grid(fact) if fact.shape != shape else None
        columns.append(
            (fact.content or ())
            if cells is None
            else tuple(np.broadcast_to(cells, sizes).ravel().tolist())
        )
    low, high = LIMITS[dtype]
    results = (f(*cells) for cells in zip(*columns, strict=True))
    return tuple(
        site.fresh(False) if x is None or (isinstance(x, int) and not low <= x <= high) else x
        for x in results
    )


def _same(site: Site) -> Fact:
    """One input; the output is like it."""
    return Fact(site.dtype(), site.shape())


def _unary(f: Scalar) -> Rule:
    def rule(site: Site) -> Fact:
        fact = site.fact(0)
        return Fact(fact.dtype, fact.shape, content_of(site, fact.dtype, fact.shape, f))

    return rule


def _arithmetic(f: Scalar | None = None, dtype: DataType | None = None) -> Rule:
    """Broadcast inputs; the type of the first one, or the given type."""

    def rule(site: Site) -> Fact:
        legacy = site.version < 7  # the second operand has to fit into the first
        shape = site.shape() if legacy else _shape_of(site, len(site.inputs))
        made = dtype or _common_type(site)
        if f is None or legacy:
            return Fact(made, shape)
        return Fact(made, shape, content_of(site, made, shape, f))

    return rule


def _common_type(site: Site) -> DataType | None:
    if site.op == "Pow":
        return site.dtype()
    return next((f.dtype for f in site.inputs if f is not None and f.dtype is not None), None)


def _variadic(f: Callable[[Dim, Dim], Dim] | None = None) -> Rule:
    """Max, Min, Sum, Mean of any number of inputs, broadcast since opset 8."""

    def fold(*cells: Dim) -> Dim | None:
        result = cells[0]
        for cell in cells[1:]:
            result = f(result, cell) if f is not None else result
        return result

    return _arithmetic(None if f is None else fold)


def _divide(a: Dim, b: Dim) -> Dim | None:
    return None if b == 0 else dims.trunc_div(a, b)


def _mod(site: Site) -> Fact:
    fmod = bool(site.attr("fmod", 0))

    def mod(a: Dim, b: Dim) -> Dim | None:
        same = dims.never_negative(a) and dims.never_negative(b)
        return None if b == 0 or (fmod and not same) else dims.floor_mod(a, b)

    found = _arithmetic(mod)(site)
    assert isinstance(found, Fact)
    return found


def _negative(a: Dim) -> Dim:
    return -a


def _absolute(a: Dim) -> Dim | None:
    if isinstance(a, int):
        return abs(a)
    return a if dims.never_negative(a) else None


def _equal(a: Dim, b: Dim) -> Dim | None:
    if a == b:
        return 1
    if isinstance(a, int) and isinstance(b, int):
        return 0
    return 0 if dims.positive(a - b) or dims.positive(b - a) else None


def _less(a: Dim, b: Dim) -> Dim | None:
    if dims.positive(b - a):
        return 1
    return 0 if dims.never_negative(a - b) else None


def _greater(a: Dim, b: Dim) -> Dim | None:
    return _less(b, a)


def _not(a: Dim) -> Dim | None:
    return 1 - a


def _less_equal(a: Dim, b: Dim) -> Dim | None:
    more = _less(b, a)
    return None if more is None else 1 - more


def _greater_equal(a: Dim, b: Dim) -> Dim | None:
    return _less_equal(b, a)


def _and(a: Dim, b: Dim) -> Dim | None:
    return a * b


def _or(a: Dim, b: Dim) -> Dim | None:
    return 1 if 1 in (a, b) else (b if a == 0 else a if b == 0 else None)


def _xor(a: Dim, b: Dim) -> Dim | None:
    return a ^ b if isinstance(a, int) and isinstance(b, int) else None


def _where(site: Site) -> Fact:
    shape = _shape_of(site, 3)
    dtype = site.dtype(1) or site.dtype(2)

    def choose(c: Dim, x: Dim, y: Dim) -> Dim | None:
        if isinstance(c, int):
            return x if c else y
        return x if x == y else None

    return Fact(dtype, shape, content_of(site, dtype, shape, choose))


def _cast(site: Site) -> Fact:
    shape = site.shape()
    target = site.attr("to")
    if site.op == "CastLike":
        dtype = site.dtype(1)
    elif isinstance(target, str):  # opset 1 has names
        dtype = DataType[target] if target in DataType.__members__ else None
    else:
        dtype = None if target is None else DataType(int(target))
    if site.op == "CastLike":  # only the first input counts
        site = Site(site.node, site.inputs[:1], site.version, site.fresh)
    convert = _to_bool if dtype == DataType.BOOL else _to_int32
    return Fact(
        dtype, shape, content_of(site, dtype, shape, _keep if _widens(site, dtype) else convert)
    )


def _widens(site: Site, dtype: DataType | None) -> bool:
    return site.dtype() == dtype or dtype == DataType.INT64


def _keep(a: Dim) -> Dim | None:
    return a


def _to_bool(a: Dim) -> Dim | None:
    if isinstance(a, int):
        return int(a != 0)
    return 1 if dims.positive(a) or dims.positive(-a) else None


def _to_int32(a: Dim) -> Dim | None:
    """Sizes fit; an integer of which nothing is known may not."""
    return a if isinstance(a, int) or all(atom.size for atom in a.atoms) else None


def _identity(site: Site) -> Fact:
    return site.fact(0)


def _dropout(site: Site) -> Sequence[Fact]:
    """The output and the mask, which older versions make of the data's type."""
    mask = DataType.BOOL if site.version >= 10 else site.dtype()
    return [_same(site), Fact(mask, site.shape())]


def _predicate(site: Site) -> Fact:
    return Fact(DataType.BOOL, site.shape())


_LIKE_INPUT = """
    Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu
    HardSigmoid HardSwish Hardmax LRN LeakyRelu Log LogSoftmax LpNormalization
    MeanVarianceNormalization Mish Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh
    Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu CumSum
    InstanceNormalization GroupNormalization RMSNormalization PRelu
""".split()  # noqa: SIM905

RULES: Rules = {
    **dict.fromkeys(_LIKE_INPUT, _same),
    "Identity": _identity,
    "Dropout": _dropout,
    "Neg": _unary(_negative),
    "Abs": _unary(_absolute),
    "Not": _unary(_not),
    "IsInf": _predicate,
    "IsNaN": _predicate,
    "Add": _arithmetic(dims.add),
    "Sub": _arithmetic(dims.subtract),
    "Mul": _arithmetic(dims.multiply),
    "Div": _arithmetic(_divide),
    "Mod": _mod,
    "Pow": _arithmetic(),
    "BitShift": _arithmetic(),
    "BitwiseAnd": _arithmetic(),
    "BitwiseOr": _arithmetic(),
    "BitwiseXor": _arithmetic(),
    "Equal": _arithmetic(_equal, DataType.BOOL),
    "Less": _arithmetic(_less, DataType.BOOL),
    "Greater": _arithmetic(_greater, DataType.BOOL),
    "LessOrEqual": _arithmetic(_less_equal, DataType.BOOL),
    "GreaterOrEqual": _arithmetic(_greater_equal, DataType.BOOL),
    "And": _arithmetic(_and, DataType.BOOL),
    "Or": _arithmetic(_or, DataType.BOOL),
    "Xor": _arithmetic(_xor, DataType.BOOL),
    "Max": _variadic(dims.maximum),
    "Min": _variadic(dims.minimum),
    "Sum": _variadic(dims.add),
    "Mean": _variadic(),
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast,
}
