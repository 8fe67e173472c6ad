"""cast: float32 becomes float16, or the reverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from onnxslim import ir
from onnxslim.ir import DataType, Model
from onnxslim.ir.floats import convert_floats
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, option

LARGEST = float(np.finfo(np.float16).max)
TYPES = {"float16": DataType.FLOAT16, "float32": DataType.FLOAT}


@dataclass(frozen=True, kw_only=True)
class Cast(Pass):
    """Weights and values in another floating-point type; inputs and outputs keep theirs.

    float16 halves the weights. ONNX Runtime computes most of it in float32 on a CPU, so that it
    is for size and for other devices.
    """

    name: ClassVar[str] = "cast"
    summary: ClassVar[str] = "float32 to float16 or back; inputs and outputs keep their type"
    inlines: ClassVar[bool] = True

    to: Literal["float16", "float32"] = option("float16", "the type", "float16 or float32")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Convert; operators that do not allow the type stay, between Casts."""
        notes = _beyond(model) if self.to == "float16" else ()
        count = convert_floats(model, TYPES[self.to])
        changed = Aspect.ALL if count else Aspect.NONE
        return PassResult(changed, {"values": count}, notes=notes)


def _beyond(model: Model) -> tuple[str, ...]:
    """What is said of constants that float16 cannot hold."""
    floats = (t.numpy() for t in ir.tensors(model) if t.dtype == DataType.FLOAT and t.size)
    sizes = (
        np.abs(array, where=np.isfinite(array), out=np.zeros_like(array)).max() for array in floats
    )
    found = [float(size) for size in sizes if size > LARGEST]
    if not found:
        return ()
    return (
        f"constants ({len(found)}) hold numbers up to {max(found):.3g}; float16 ends at "
        f"{LARGEST:.0f}, which they were cut to",
    )
