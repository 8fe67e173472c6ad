"""What quant remembers in `Value.meta` of what it put in, so that it can be taken out again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from onnxslim.ir import Node, TensorProtocol
from onnxslim.passes.quant.qparams import Affine

FLOAT = "onnxslim.float"


@dataclass(frozen=True)
class FloatWeight:
    """The float constant that a DequantizeLinear stands for; None for a bias that was not there."""

    tensor: TensorProtocol | None


@dataclass(frozen=True)
class FloatCodes:
    """The constant [d, out] of the MatMul that a MatMulNBits stands for."""

    tensor: TensorProtocol | None


@dataclass(frozen=True)
class FloatAdded:
    """What an Add added at this input before it also made up for a layer's rounding."""

    tensor: TensorProtocol | None
    index: int


@dataclass(frozen=True)
class FloatEdge:
    """A Q and DQ pair on a tensor, and the affine map that the DQ absorbed.

    `smoothed`: before the Q the tensor is divided by a vector, which weights take up. `scaled`:
    that was done in the normalization that makes it; its inputs, and what they held.
    """

    affine: Affine
    smoothed: bool = False
    scaled: tuple[tuple[int, TensorProtocol], ...] = ()


@dataclass(frozen=True)
class FloatGate:
    """The operator that a product with a gate stands for, and its name."""

    op: str
    name: str


@dataclass(frozen=True)
class FloatLayer:
    """The operator and weight that a chain with dynamic quantization stands for, and its name."""

    op: str
    tensor: TensorProtocol | None
    transposed: bool
    name: str


@dataclass(frozen=True)
class FloatRecurrent:
    """The weights of the LSTM that a DynamicQuantizeLSTM stands for."""

    weight: TensorProtocol | None
    recurrence: TensorProtocol | None


@dataclass(frozen=True)
class FloatTable:
    """The table of an embedding, and the name of the Gather that read it."""

    tensor: TensorProtocol | None
    name: str


@dataclass(frozen=True)
class FloatProduct:
    """What a MatMulIntegerToFloat stands for: the marks of the DequantizeLinears that a MatMul
    read, and of the Add behind it, with that one's name where there was one."""

    edge: FloatEdge | None
    weight: FloatWeight
    added: FloatAdded | None = None
    add_name: str | None = None


@dataclass(frozen=True)
class FloatConv:
    """A FusedConv that stands for a Conv in float."""


Mark = (
    FloatWeight
    | FloatCodes
    | FloatAdded
    | FloatConv
    | FloatEdge
    | FloatGate
    | FloatLayer
    | FloatRecurrent
    | FloatTable
    | FloatProduct
)


def mark_of(node: Node) -> Mark | None:
    """What the first output of a node stands for, if quant made it."""
    return cast("Mark | None", node.outputs[0].meta.get(FLOAT)) if node.outputs else None
