"""Schemes fp16 and bf16: weights in 16 bits, and the computing too where the target gains by it.

Stored: w -> Cast(w in 16 bits), computed in float32: runtimes fold the Cast when they load.
Computed (float16 on targets that list it in `half`): see islands.py. Nothing computes in bfloat16:
ONNX Runtime has no kernels for it on CPUs, so that such a model could not be checked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, DataType, Editor, Model, Value
from onnxslim.passes.quant.contrib import DOMAIN
from onnxslim.passes.quant.rewrite.products import PRODUCT
from onnxslim.passes.quant.selection import first_output
from onnxslim.pipeline.base import Declined, Layer

Half = Literal["fp16", "bf16"]

SMALLEST = 64
"""Numbers in a constant below which a Cast takes more bytes than it saves."""

EXACT = frozenset({"QuantizeLinear", "DequantizeLinear", f"{DOMAIN}::{PRODUCT}"})
"""Operators whose parameters are not to be rounded."""


@dataclass(frozen=True)
class Format:
    """A floating-point type of 16 bits, and how well it must keep the numbers of a weight."""

    dtype: DataType
    name: str
    least_db: float  # signal to rounding noise: 11 bits give 73 to 77 dB, 8 bits 55 to 59


FORMATS: dict[Half, Format] = {
    "fp16": Format(DataType.FLOAT16, "float16", 60.0),
    "bf16": Format(DataType.BFLOAT16, "bfloat16", 45.0),
}


def store_half(
    editor: Editor, half: Half, excluded: Collection[str] = ()
) -> tuple[list[Layer], list[Declined]]:
    """Let float32 constants of all scopes be 16 bits wide, with a Cast to float32 behind each.

    `excluded` are names of first outputs of nodes whose constants stay. So do constants that the
    type cannot hold; they are returned with the reason. A weight that many nodes read is stored
    once, with one Cast.
    """
    rows: list[Layer] = []
    declined: list[Declined] = []
    for value in list(_constants(editor.model)):
        readers = [use.node for use in value.uses()]
        if any(first_output(node) in excluded for node in readers):
            continue
        narrow = _narrowed(value, FORMATS[half])
        if isinstance(narrow, str):
            declined.append(Declined(str(value.name), narrow))
        else:
            first, name = readers[0], FORMATS[half].name
            rows.append(Layer(ir.label(first), ir.op(first), f"{name} weights, float32 values"))
            _store(editor, value, narrow)
    editor.remove_dead()
    return rows, declined


def _constants(model: Model) -> Iterator[Value]:
    """The float32 constants that are worth it: initializers and outputs of Constant nodes."""
    for scope in ir.scopes(model):
        held = list(scope.initializers.values()) if isinstance(scope, ir.Graph) else []
        made = [node.outputs[0] for node in scope if ir.op(node) == "Constant"]
        yield from (value for value in (*held, *made) if _worth_it(value))


def _worth_it(value: Value) -> bool:
    tensor = ir.constant(value)
    if tensor is None or tensor.dtype != DataType.FLOAT or tensor.size < SMALLEST:
        return False
    if value.is_graph_output() or not value.uses():
        return False
    return not any(ir.op(use.node) in EXACT for use in value.uses())


def _narrowed(value: Value, form: Format) -> Array | str:
    """The content in 16 bits, or why they do not hold it."""
    exact = ir.array(value)
    assert exact is not None
    with np.errstate(over="ignore"):
        narrow: Array = exact.astype(form.dtype.numpy())
        back = narrow.astype(np.float32)
    if (np.isfinite(exact) & ~np.isfinite(back)).any():
        return f"its largest number, {np.abs(exact).max():.3g}, is out of the range of {form.name}"
    used = np.isfinite(exact)
    signal = float(np.square(exact[used], dtype=np.float64).sum())
    noise = float(np.square(exact[used] - back[used], dtype=np.float64).sum())
    if noise > 0 and 10 * np.log10(signal / noise) < form.least_db:
        return f"most of its numbers are too small for {form.name}"
    return narrow


def _store(editor: Editor, value: Value, narrow: Array) -> None:
    uses = [(use.node, use.idx) for use in value.uses()]
    held = editor.initializer(editor.scope_of(value), f"{value.name}.half", narrow)
    cast = editor.node(
        "Cast", [held], outputs=[f"{value.name}.float"], attributes={"to": DataType.FLOAT.value}
    )
    editor.insert_on_edge(value, [cast], cast.outputs[0], uses)
