"""Recipes for graphs inside nodes, and for functions of the model."""

from __future__ import annotations

import math

from tests.random_graphs.builder import WORLDS, Builder, Unfit, Val, declare, fixed, renamed
from tests.random_graphs.elementwise import Recipe, combine, joined, unary

KEEPING = ["Relu", "Neg", "Identity", "Abs", "Tanh", "Sigmoid"]


def steps(inner: Builder, count: int) -> None:
    """Some random nodes of the main graph's recipes."""
    from tests.random_graphs.recipes import step

    for _ in range(count):
        step(inner)


def branch(b: Builder, x: Val, name: str) -> tuple[str, Val]:
    """The graph of a branch, with one output of the shape of x."""
    inner = b.child()
    if b.depth < 2:
        steps(inner, b.rng.randrange(3))
    kind = b.rng.randrange(4)
    if kind == 0:  # nothing but a value from outside
        y = unary(inner, x, "Identity")
    elif kind == 1:
        like = inner.pick(lambda v: v.dtype == "float" and v.shape == x.shape)
        y = combine(inner, "Add", unary(inner, x, b.rng.choice(KEEPING)), like)
    else:
        y = combine(inner, b.rng.choice(["Add", "Mul"]), x, inner.scalar(0.5, [1] * x.rank))
    text = f"{name} () => ({declare(y)}) {inner.held()} {{ {' '.join(inner.lines)} }}"
    return text, y


def if_(b: Builder) -> Val:
    """With a condition that is fed, constant, or computed from sizes."""
    if b.depth >= 2:
        raise Unfit
    x = b.floats()
    kind = b.rng.randrange(3)
    if kind == 0:
        condition = b.pick(lambda v: v.dtype == "bool" and v.rank == 0)
    elif kind == 1:
        condition = b.constant("bool", (), [b.rng.randrange(2)])
    else:
        size = b.pick(lambda v: v.content is not None and v.rank == 0)
        one = b.constant("int64", (), [b.rng.choice([1, 2, 4])])
        condition = b.node("Equal", [size, one], (), dtype="bool", bound=1, error=0.0)
    (yes, one), (no, other) = branch(b, x, "yes"), branch(b, x, "no")
    result = renamed(one, b.names.new())
    bound, error = max(one.bound, other.bound), max(one.error, other.error) + condition.error
    result = Val(result.name, x.dtype, x.shape, bound, error if error < 1e6 else math.inf)
    b.lines.append(
        f"{result.name} = If ({condition.name}) <\n    then_branch = {yes},\n"
        f"    else_branch = {no}>"
    )
    b.values.append(result)
    b.own.append(result)
    return result


def loop(b: Builder) -> Val:
    """That runs 0, 1, 2 or as many times as a size says, with a state and now and then scans."""
    if b.depth >= 2:
        raise Unfit
    x = b.floats()
    other = b.pick(lambda v: v.dtype == "float" and v.shape == x.shape)
    if b.chance(3):
        trip = b.pick(lambda v: v.content is not None and v.rank == 0)
        assert trip.content is not None
        trips = [row[0] for row in trip.content]
        if not all(0 <= t <= 5 for t in trips):
            raise Unfit
    else:
        trips = [b.rng.choice([0, 1, 1, 2])] * len(WORLDS)
        trip = b.constant("int64", (), trips[:1])
    inner = b.child()
    state = Val(b.names.new(), "float", x.shape)
    inner.values.append(state)
    turn, go, going = b.names.new(), b.names.new(), b.names.new()
    if b.depth < 1:
        steps(inner, b.rng.randrange(2))
    changed = combine(inner, "Add", unary(inner, state, b.rng.choice(KEEPING[:4])), other)
    scan = b.chance(2)
    outputs = [f"bool {going}", declare(changed)]
    results = [Val(b.names.new(), "float", x.shape, *after(x, other, max(trips)))]
    if scan:
        y = unary(inner, changed, "Neg")
        outputs.append(declare(y))
        results.append(Val(b.names.new(), "float", (tuple(trips), *x.shape)))
    body = (
        f"body (int64 {turn}, bool {go}, {declare(state)}) => ({', '.join(outputs)}) "
        f"{inner.held()} {{ {going} = Identity ({go}) {' '.join(inner.lines)} }}"
    )
    start = b.constant("bool", (), [1]).name if b.chance(2) else ""
    b.lines.append(
        f"{', '.join(v.name for v in results)} = Loop ({trip.name}, {start}, {x.name}) <\n"
        f"    body = {body}>"
    )
    # the runtime leaves the shape of scans open where the loop does not run: nothing reads them
    kept = results if min(trips) else results[:1]
    b.values += kept
    b.own += kept
    return results[0]


def after(x: Val, other: Val, turns: int) -> tuple[float, float]:
    """Bound and error after some turns that each add the other value."""
    state = x
    for _ in range(turns):
        bound, error = joined("Add", state, other)
        state = Val("", "float", x.shape, bound, error)
    return state.bound, state.error


def scan(b: Builder) -> Val:
    """A running sum along the first axis."""
    if b.depth >= 2:
        raise Unfit
    x = b.pick(lambda v: v.dtype == "float" and v.rank == 2 and len(set(v.shape[1])) == 1)
    width = x.shape[1][0]
    start = b.weights(width)
    names = [b.names.new() for _ in range(6)]
    state, row, total, out, last, rows = names
    body = (
        f"body (float[{width}] {state}, float[{width}] {row}) => "
        f"(float[{width}] {total}, float[{width}] {out}) "
        f"{{ {total} = Add ({state}, {row}) {out} = Neg ({total}) }}"
    )
    b.lines.append(
        f"{last}, {rows} = Scan <num_scan_inputs = 1, body = {body}> ({start.name}, {x.name})"
    )
    results = [Val(last, "float", fixed(width)), Val(rows, "float", x.shape)]
    b.values += results
    b.own += results
    return results[1]


FUNCTIONS = {
    "gate": "gate (a, b) => (c) { r = Sigmoid (a) c = Mul (r, b) }",
    "keep": "keep (a, b) => (c) { i = Identity (a) c = Add (i, b) }",
    "leak": "leak <alpha> (a, b) => (c) { r = LeakyRelu <alpha: float = @alpha> (a)"
    " c = Max (r, b) }",
    "nest": "nest (a, b) => (c) { r = local.gate (a, b) s = Shape (a) t = Reshape (r, s)"
    " c = Add (t, b) }",
}


def function(b: Builder) -> Val:
    """A call of a function that the model brings."""
    x = b.floats()
    y = b.pick(lambda v: v.dtype == "float" and v.shape == x.shape)
    if not x.rank:
        raise Unfit
    name = b.rng.choice(list(FUNCTIONS))
    needed = [name, "gate"] if name == "nest" else [name]
    for one in needed:
        b.functions[one] = FUNCTIONS[one]
    attributes = {"alpha": b.rng.choice([0.1, 0.5])} if name == "leak" else {}
    return b.node(f"local.{name}", [x, y], x.shape, attributes=attributes)


RECIPES: list[tuple[int, Recipe]] = [(4, if_), (4, loop), (1, scan), (3, function)]
