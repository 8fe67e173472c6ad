"""A small builder of ONNX graphs: weights become initializers, every node gets a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
Shape = Sequence[int | str]


class GraphBuilder:
    """Collects nodes and initializers; `model` makes the checked ModelProto."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """An initializer called `name`; naming it twice gives the first one again."""
        if name not in self._weights:
            contiguous = np.ascontiguousarray(array).reshape(array.shape)
            self._weights[name] = numpy_helper.from_array(contiguous, name)
        return name

    def ints(self, *values: int) -> str:
        """A 1-D int64 initializer, shared by all who ask for the same values."""
        name = "ints_" + "_".join(map(str, values)).replace("-", "m")
        return self.weight(name, np.array(values, np.int64))

    def scalar(self, name: str, value: float) -> str:
        """A float32 scalar initializer."""
        return self.weight(name, np.array(value, np.float32))

    def op(self, kind: str, *inputs: str, scope: str, **attributes: Any) -> str:
        """Adds a node `scope/kind` and gives the name of its one output."""
        name = f"{scope}/{kind}"
        output = attributes.pop("output", f"{name}_output_0")
        self._nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return str(output)

    def reshape(self, value: str, *shape: int, scope: str) -> str:
        """Reshape to constants; 0 keeps an axis, -1 is inferred."""
        return self.op("Reshape", value, self.ints(*shape), scope=scope)

    def model(
        self, inputs: Mapping[str, tuple[int, Shape]], outputs: Mapping[str, Shape]
    ) -> onnx.ModelProto:
        """The checked model; inputs are name -> (element type, shape), outputs are float."""
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            list(self._weights.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "onnxslim-compiler models"
        onnx.checker.check_model(model, full_check=True)
        return model
