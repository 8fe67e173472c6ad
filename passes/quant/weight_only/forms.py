"""How codes are written: what each form makes of a product, and of rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxslim.ir import Array, DataType, Editor, Node, Scope, TensorProtocol, Value
from onnxslim.passes.quant.weight_only.grid import Grid


@dataclass(frozen=True)
class Stored:
    """The constants of a weight [out, d] in a form's own layout."""

    codes: Value
    scale: Value
    zero: Value | None
    out: int
    d: int
    block: int
    bits: int  # that are stored, 4 or 8

    @property
    def inputs(self) -> list[Value]:
        """In the order in which operators take them; without zero points where these are 0."""
        zeros = [] if self.zero is None else [self.zero]
        return [self.codes, self.scale, *zeros]


@dataclass(frozen=True)
class Form:
    """`store(editor, scope, hint, codes [out, d], grid)` makes the constants;
    `product(editor, x, stored, name, columns)` the nodes of x W^T, `columns` being the float weight
    [d, out] that they stand for;
    `rows(editor, gather, stored)` those of a Gather of rows, or why not. The last node gives the
    result.
    `least_opset` is the first version of ONNX's operators that has what the form needs.
    """

    least_opset: int
    store: Callable[[Editor, Scope, str, Array, Grid], Stored]
    product: Callable[[Editor, Value | None, Stored, str, TensorProtocol | None], Sequence[Node]]
    rows: Callable[[Editor, Node, Stored], Sequence[Node] | str]


def stored_bits(grid: Grid) -> int:
    """Bits of one code in the file."""
    return 8 if grid.bits > 4 else 4


def code_type(bits: int) -> DataType:
    """The element type of codes."""
    return DataType.UINT8 if bits == 8 else DataType.UINT4
