"""Layers: convolutions, matrix products and recurrent layers.

What a layer sums over ends there; the positions of its output are the rows of its weight.
"""

from __future__ import annotations

from onnxslim import ir
from onnxslim.analyses.axes.atoms import Axis
from onnxslim.analyses.axes.elementwise import broadcast_axis
from onnxslim.analyses.axes.site import Rules, Site, Unfollowed

_WINDOW = "a window slides along it"


def _conv(site: Site) -> None:
    _convolution(site, rows=0, columns=1)


def _conv_transpose(site: Site) -> None:
    _convolution(site, rows=1, columns=0)


def _convolution(site: Site, rows: int, columns: int) -> None:
    """Weight [out, C/g, ...] or transposed [C, out/g, ...]; x [N, C, ...]."""
    x, w = _read(site), site.axes(1)
    for axis in (*x[2:], *w[2:]):
        site.freeze(axis, _WINDOW)
    groups = int(site.attr("group", 1))
    if groups == 1:
        site.tie(x[1], w[columns])
        out = w[rows]
        site.work(out, w[columns])
    else:
        out = _grouped(site, groups, rows, columns)
    site.sink(0, 1)
    if site.has(2):
        site.tie(out, site.axes(2)[0])
    if site.is_constant(1):
        site.layer(1, out, x[1])
    site.set(0, [x[0], out, *[None] * (len(x) - 2)])


def _read(site: Site) -> tuple[Axis, ...]:
    """The axes of the input; where nothing is known of it, as many as those of the weight."""
    value = site.input(0)
    if not site.trace.of(value):
        site.trace.axes[value] = (None,) * len(site.axes(1))
    return site.axes(0)


def _grouped(site: Site, groups: int, rows: int, columns: int) -> Axis:
    """Channels are (group, channel of the group); a group goes with all that is in it."""
    x, w = _read(site), site.axes(1)
    total, part = (rows, columns) if rows == 0 else (columns, rows)
    sizes = site.dims(1)
    whole, inner = sizes[total], sizes[part]
    if not isinstance(whole, int) or not isinstance(inner, int) or whole % groups:
        raise Unfollowed("the sizes of its groups are not known")
    group = site.trace.atoms.fresh(groups)
    of_total = site.fresh(whole // groups)
    site.counted("group", group)
    site.product(w[total], (groups, whole // groups), (group, of_total))
    if rows == 0:
        site.product(x[1], (groups, inner), (group, w[part]))
        out = w[0]
    else:
        site.tie(x[1], w[0])
        out = site.merged((groups, inner), (group, w[part]))
    site.work(w[total], w[part])
    return out


def _gemm(site: Site) -> None:
    a, b = site.axes(0), site.axes(1)
    rows, inner = (a[1], a[0]) if site.attr("transA", 0) else (a[0], a[1])
    out, other = (b[0], b[1]) if site.attr("transB", 0) else (b[1], b[0])
    site.tie(inner, other)
    _meet(site, 0 if site.attr("transA", 0) else 1, 1 if site.attr("transB", 0) else 0)
    if site.has(2):
        _addend(site, rows, out)
    if site.is_constant(1):
        site.layer(1, out, inner)
    site.work(rows, out, inner)
    site.set(0, [rows, out])


def _addend(site: Site, rows: Axis, out: Axis) -> None:
    """C of Gemm is broadcast to the output, but never widens it."""
    c, dims = site.axes(2), site.dims(2)
    for axis, target in ((-1, out), (-2, rows)):
        if len(c) >= -axis and dims[axis] != 1:
            site.tie(target, c[axis])


def _meet(site: Site, one: int, other: int) -> None:
    """Two operands are summed over together: zeros in one are enough, and no weight needs them."""
    computed = [i for i in (0, 1) if ir.constant(site.input(i)) is None] or [0]
    for index in computed:
        site.sink(index, (one, other)[index])


def _matmul(site: Site) -> None:
    a, b = site.axes(0), site.axes(1)
    if not a or not b:
        raise Unfollowed("an operand is a scalar")
    inner = site.tie(a[-1], b[-2 if len(b) > 1 else 0])
    _meet(site, -1, -2 if len(b) > 1 else 0)
    rank = max(len(a), len(b))
    batch = [broadcast_axis(site, [0, 1], axis - rank) for axis in range(rank - 2)]
    rows, out = a[-2] if len(a) > 1 else None, b[-1] if len(b) > 1 else None
    site.work(*batch, rows, out, inner)
    ends = ([rows] if len(a) > 1 else []) + ([out] if len(b) > 1 else [])
    if site.is_constant(1):
        site.layer(1, out, inner)
    elif not site.is_constant(0):
        site.meeting(batch, inner, (rows, out))
    site.set(0, [*batch, *ends])


def _recurrent(site: Site) -> None:
    """LSTM, GRU and RNN read features that may shrink; their own state stays."""
    x, w = site.axes(0), site.axes(1)
    state = "the state of a recurrent layer keeps its size"
    for axis in (*x[:2], *w[:2]):
        site.freeze(axis, state)
    for index in range(2, len(site.node.inputs)):
        if site.has(index):
            for axis in site.axes(index):
                site.freeze(axis, state)
    site.tie(x[2], w[2])
    site.sink(0, 2)
    site.work(w[2])
    site.layer(1, None, x[2])


def _einsum(site: Site) -> None:
    terms, arrow, result = site.text("equation").replace(" ", "").partition("->")
    operands = terms.split(",")
    if not arrow or "." in terms or any(len(set(t)) < len(t) for t in operands):
        raise Unfollowed("its equation has an ellipsis, a diagonal or no arrow")
    atoms: dict[str, Axis] = {}
    for index, term in enumerate(operands):
        for letter, axis in zip(term, site.axes(index), strict=True):
            atoms[letter] = site.tie(atoms[letter], axis) if letter in atoms else axis
    for index, term in enumerate(operands):
        for position, letter in enumerate(term):
            if letter not in result:
                site.sink(index, position)
    site.work(*atoms.values())
    _name_einsum(site, operands, result, atoms)
    site.set(0, [atoms[letter] for letter in result])


def _name_einsum(site: Site, operands: list[str], result: str, atoms: dict[str, Axis]) -> None:
    """An einsum of two is a layer or a meeting, like MatMul."""
    if len(operands) != 2:
        return
    shared = set(operands[0]) & set(operands[1])
    inner = [atoms[c] for c in sorted(shared - set(result))]
    weights = [index for index in (0, 1) if site.is_constant(index)]
    if not weights:
        batch = [atoms[c] for c in sorted(shared & set(result))]
        outer = [atoms[c] for c in result if c not in shared]
        site.meeting(batch, inner[0] if inner else None, outer)
        return
    rows = [atoms[c] for c in operands[weights[-1]] if c in result and c not in shared]
    for axis in rows:
        site.layer(weights[-1], axis, inner[0] if inner else None)


RULES: Rules = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "com.microsoft::FusedGemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}
