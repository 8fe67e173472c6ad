"""In which numbers a runtime wants tensors, weights and biases: data for static quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Numbers:
    """A type of quantized tensors: ONNX's name for it, its lowest and its highest number.

    `symmetric`: the zero point is always 0. For integers the distance of neighbours is 1; for
    floating-point types it grows with the number.
    """

    dtype: Literal["uint8", "int8", "uint16", "float8_e4m3fn"]
    low: int
    high: int
    symmetric: bool = False

    @property
    def is_float(self) -> bool:
        """Whether these are floating-point numbers."""
        return self.dtype.startswith("float")


UINT8 = Numbers("uint8", 0, 255)
UINT16 = Numbers("uint16", 0, 65535)
INT8 = Numbers("int8", -127, 127, symmetric=True)
INT7 = Numbers("int8", -63, 63, symmetric=True)
FP8 = Numbers("float8_e4m3fn", -448, 448, symmetric=True)


@dataclass(frozen=True)
class Form:
    """How a runtime wants a quantized model to be written.

    `bias`: int32 with scale x * w, or left as float32. `affine`: whether a DequantizeLinear may
    have other parameters than the QuantizeLinear before it, so that it also does a Mul or Add.
    """

    activation: Numbers = UINT8
    weight: Numbers = INT8
    bias: Literal["int32", "float32"] = "int32"
    affine: bool = True
    min_opset: int = 13  # scales per channel


DEFAULT = Form()


@dataclass(frozen=True)
class Blocks:
    """How a runtime wants weights alone: codes of at most so many `bits` in the file, blocks of
    `sizes` inputs, from the smallest to the largest. `symmetric`: signed codes without zero points.
    """

    bits: int = 8
    sizes: tuple[int, ...] = (16, 32, 64, 128, 256)
    symmetric: bool = False

    def nearest(self, size: int) -> int:
        """The size that comes closest to one that is asked for."""
        return min(self.sizes, key=lambda there: (abs(there - size), there))


BLOCKS = Blocks()
