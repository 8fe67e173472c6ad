"""cast: float32 becomes float16, or the reverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxslim.ir import DataType, Model
from onnxslim.ir.floats import convert_floats
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, option

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
        count = convert_floats(model, TYPES[self.to])
        changed = Aspect.ALL if count else Aspect.NONE
        return PassResult(changed, {"values": count})
