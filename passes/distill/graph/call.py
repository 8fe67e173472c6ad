"""One operator that is being computed: its inputs and attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnxslim.passes.distill.graph.api import Tensor


class Unsupported(Exception):
    """What of an operator torch is not made to compute here."""


@dataclass(frozen=True)
class Call:
    """The operator `op` of opset `version` with tensors (None where an input is absent)."""

    op: str
    inputs: Sequence[Tensor | None]
    attributes: dict[str, Any]
    version: int
    dtype: Any  # of all floats of the program
    outputs: int = 1  # how many are wanted

    def __getitem__(self, index: int) -> Tensor:
        """An input that must be there."""
        value = self.get(index)
        if value is None:
            raise Unsupported(f"{self.op} without its input {index}")
        return value

    def get(self, index: int) -> Tensor | None:
        """An input that may be absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a plain Python value."""
        return self.attributes.get(name, default)

    def ints(self, name: str, index: int) -> list[int] | None:
        """Integers that are an attribute in older opsets and an input in newer ones."""
        given = self.attributes.get(name)
        if given is not None:
            return [given] if isinstance(given, int) else [int(v) for v in given]
        value = self.get(index)
        return None if value is None else [int(v) for v in value.reshape(-1).tolist()]


Function: TypeAlias = Callable[[Call], Any]
"""What an operator gives: a tensor, or a tuple of them, one per output."""


def first(function: Callable[..., Tensor]) -> Function:
    """A function of one tensor as an operator."""
    return lambda call: function(call[0])


def both(function: Callable[..., Tensor]) -> Function:
    """A function of two tensors as an operator."""
    return lambda call: function(call[0], call[1])
