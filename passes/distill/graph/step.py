"""One node of a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxslim.passes.distill.graph.api import Tensor
from onnxslim.passes.distill.graph.call import Call, Function


@dataclass(frozen=True)
class Step:
    """One node: what is called with which values."""

    function: Function
    op: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    version: int

    def run(self, values: Mapping[str, Tensor], dtype: Any) -> Sequence[Tensor]:
        """Its outputs, in order."""
        given = [None if name is None else values[name] for name in self.inputs]
        call = Call(self.op, given, self.attributes, self.version, dtype, len(self.outputs))
        made = self.function(call)
        return made if isinstance(made, (tuple, list)) else (made,)
