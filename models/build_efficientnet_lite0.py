"""EfficientNet-Lite0 as an ONNX graph, from the state dict of its PyTorch checkpoint.

The published architecture (Tan and Le, "EfficientNet", 2019, lite variant: no squeeze-excite,
ReLU6) with BatchNormalization unfolded and TensorFlow's asymmetric SAME padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from models.catalog import Recipe
from models.graphs import GraphBuilder
from models.packages import Store
from models.torch_pickle import load_state_dict

# (repeats, kernel, stride, expand, channels in, channels out) of each stage
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
EPSILON = 1e-3
SIDE = 224
STATISTICS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Convolution:
    """What a Conv needs besides its weight."""

    kernel: int
    stride: int
    group: int = 1

    @property
    def pads(self) -> list[int]:
        """SAME for an even side: the odd row and column of padding go to the end."""
        total = max(self.kernel - self.stride, 0)
        before = total // 2
        return [before, before, total - before, total - before]


class LiteBuilder(GraphBuilder):
    """Adds the layers of EfficientNet-Lite to a graph."""

    def __init__(self, state: dict[str, NDArray[Any]]) -> None:
        super().__init__("efficientnet_lite0")
        self._state = state

    def parameter(self, key: str) -> str:
        return self.weight(key.removeprefix("_").replace("._", "."), self._state[key])

    def conv_norm(self, value: str, conv: str, norm: str, spec: Convolution) -> str:
        """Conv + BatchNormalization, each under its key of the state dict."""
        value = self.op(
            "Conv",
            value,
            self.parameter(f"{conv}.weight"),
            scope=f"/{conv}",
            kernel_shape=[spec.kernel] * 2,
            strides=[spec.stride] * 2,
            pads=spec.pads,
            group=spec.group,
        )
        statistics = [self.parameter(f"{norm}.{name}") for name in STATISTICS]
        return self.op("BatchNormalization", value, *statistics, scope=f"/{norm}", epsilon=EPSILON)

    def relu6(self, value: str, scope: str) -> str:
        return self.op("Clip", value, self.scalar("zero", 0), self.scalar("six", 6), scope=scope)

    def block(self, value: str, key: str, spec: Convolution, expand: int, residual: bool) -> str:
        """MBConv: expand 1x1, depthwise, project 1x1; adds its input where the shapes agree."""
        source = value
        if expand > 1:
            value = self.conv_norm(value, f"{key}._expand_conv", f"{key}._bn0", Convolution(1, 1))
            value = self.relu6(value, f"/{key}/expand")
        value = self.conv_norm(value, f"{key}._depthwise_conv", f"{key}._bn1", spec)
        value = self.relu6(value, f"/{key}/depthwise")
        value = self.conv_norm(value, f"{key}._project_conv", f"{key}._bn2", Convolution(1, 1))
        return self.op("Add", value, source, scope=f"/{key}") if residual else value

    def blocks(self, value: str) -> str:
        number = 0
        for repeats, kernel, first_stride, expand, first_in, out in STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                channels = out if repeat else first_in
                spec = Convolution(kernel, stride, channels * expand)
                residual = stride == 1 and channels == out
                value = self.block(value, f"_blocks.{number}", spec, expand, residual)
                number += 1
        return value

    def network(self) -> onnx.ModelProto:
        value = self.conv_norm("input", "_conv_stem", "_bn0", Convolution(3, 2))
        value = self.blocks(self.relu6(value, "/stem"))
        value = self.conv_norm(value, "_conv_head", "_bn1", Convolution(1, 1))
        value = self.op("GlobalAveragePool", self.relu6(value, "/head"), scope="/head")
        value = self.op("Flatten", value, scope="/head", axis=1)
        classifier = (self.parameter("_fc.weight"), self.parameter("_fc.bias"))
        self.op("Gemm", value, *classifier, scope="/fc", transB=1, output="logits")
        image = (TensorProto.FLOAT, ("N", 3, SIDE, SIDE))
        return self.model({"input": image}, {"logits": ("N", 1000)})


def build(recipe: Recipe, store: Store, target: Path) -> None:
    """Writes the model with input [N,3,224,224] and output logits [N,1000]."""
    state = load_state_dict(store.open(recipe.package).read(recipe.member))
    floats = {key: value for key, value in state.items() if value.dtype == np.float32}
    onnx.save(LiteBuilder(floats).network(), target)
