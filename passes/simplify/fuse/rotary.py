"""The Neg of rotary embeddings moved into the table of sines: one for all layers, or none.

Concat(-a, b) * s -> Concat(a, b) * s',  s' = s with the sign of that part turned
s' is another constant where s is cut out of a constant that only such products read, along other
axes; else one Mul, where several products read s. Signs are exact: (-a) s = a (-s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Node, Use, Value
from onnxslim.passes.simplify.fuse.matmul import changed
from onnxslim.rewrite import Rewrite, Rule


@dataclass(frozen=True)
class _Product:
    """Concat(..., -part, ...) * table."""

    mul: Node
    index: int  # of the table among the inputs of the Mul
    concat: Node
    signs: tuple[int, ...]  # one per element of the last axis

    @property
    def negs(self) -> list[Node]:
        """The parts that are turned."""
        makers = [v.producer() for v in self.concat.inputs if v is not None]
        return [node for node in makers if node is not None and ir.op(node) == "Neg"]


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    for index in (0, 1):
        if (found := _product(node, index, facts)) is not None:
            break
    else:
        return None
    table = node.inputs[found.index]
    assert table is not None
    if table.graph is None or (facts.shape(table) or (0,))[-1] != len(found.signs):
        return "its factor has not the shape of what is concatenated"
    alike = [
        other
        for use in table.uses()
        if (other := _product(use.node, use.idx, facts)) is not None and other.signs == found.signs
    ]
    dtype = facts.dtype(table)
    if dtype is None or dtype.numpy().kind != "f":
        return "the type of its factor is not known, or has no sign"
    signs = np.array(found.signs, dtype.numpy())
    if (cut := _constant_behind(table, len(alike))) is not None:
        return lambda editor: _turn_constant(editor, cut, alike, signs)
    if len(alike) < 2 or any(p.mul.graph is not table.graph for p in alike):
        return "its factor is not constant, and no other product reads it"
    return lambda editor: _turn_table(editor, table, alike, signs)


def _product(mul: Node, index: int, facts: Facts) -> _Product | None:
    """A Mul whose input `index` is the table."""
    if ir.op(mul) != "Mul" or len(mul.inputs) != 2:
        return None
    joined = mul.inputs[1 - index]
    concat = None if joined is None else joined.producer()
    if joined is None or concat is None or ir.op(concat) != "Concat" or not _private(joined, mul):
        return None
    rank = facts.rank(joined)
    if rank is None or int(ir.attribute(concat, "axis", 0)) % rank != rank - 1:
        return None
    signs: list[int] = []
    for part in concat.inputs:
        size = (facts.shape(part) or (None,))[-1]
        if part is None or not isinstance(size, int):
            return None
        maker = part.producer()
        turned = maker is not None and ir.op(maker) == "Neg" and _private(part, concat)
        signs += [-1 if turned else 1] * size
    return _Product(mul, index, concat, tuple(signs)) if -1 in signs else None


def _private(value: Value, reader: Node) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output() and value.graph is reader.graph


def _constant_behind(table: Value, readers: int) -> Use | None:
    """Where the constant is read that the table is cut from; nothing else may read either."""
    node = table.producer()
    if node is None or len(table.uses()) != readers or table.is_graph_output():
        return None
    constant = node.inputs[0] if node.inputs else None
    tensor = ir.constant(constant)
    if tensor is None or constant is None or len(constant.uses()) != 1:
        return None
    return (node, 0) if _keeps_last_axis(node, len(tensor.shape)) else None


def _keeps_last_axis(node: Node, rank: int) -> bool:
    """Whether the last axis of the result is the whole last axis of the input."""
    if ir.op(node) == "Gather":
        return int(ir.attribute(node, "axis", 0)) % rank != rank - 1
    if ir.op(node) != "Slice" or len(node.inputs) < 4:
        return False
    axes = ir.array(node.inputs[3])
    return axes is not None and all(int(axis) % rank != rank - 1 for axis in axes.ravel())


def _turn_constant(
    editor: Editor, cut: Use, products: Sequence[_Product], signs: Array
) -> Sequence[Node]:
    node, index = cut
    tensor = ir.constant(node.inputs[index])
    assert tensor is not None
    turned = changed(tensor, signs, lambda old: old * signs)
    editor.replace_initializer(editor.unshare(node, index), turned)
    return _without_negs(editor, products)


def _turn_table(
    editor: Editor, table: Value, products: Sequence[_Product], signs: Array
) -> Sequence[Node]:
    constant = editor.initializer(editor.scope_of(table), f"{table.name}.signs", signs)
    mul = editor.node("Mul", [table, constant], outputs=[f"{table.name}.turned"])
    uses = [(p.mul, p.index) for p in products]
    editor.insert_on_edge(table, [mul], mul.outputs[0], uses)
    return [mul, *_without_negs(editor, products)]


def _without_negs(editor: Editor, products: Sequence[_Product]) -> list[Node]:
    for product in products:
        for neg in product.negs:
            if neg.inputs[0] is not None:
                editor.bypass(neg, neg.inputs[0])
    return [product.concat for product in products]


TURN = Rule(
    "neg-into-table", frozenset({"Mul"}), _match,
    "Concat(-a, b) * table -> Concat(a, b) * table'",
)  # fmt: skip
RULES: tuple[Rule, ...] = (TURN,)
