"""Patterns of other packages, in the text form of the other onnxslim (PyPI).

One line per node: operator, name, number of inputs, number of outputs, names of the inputs, names
of the outputs. `input` and `output` are the ends, `?` is anything. A number of inputs with a `+`
stands for the first inputs of at least so many, with a `*` for inputs at any place.

    input    x    0 1 r0
    Relu     r0   1 1 x r1
    Relu     r1   1 1 r0 y
    output   y    1 0 r1

The matched nodes and the tensors behind the inputs are attributes of the matcher, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onnxslim.errors import ConfigError

__all__ = ["Line", "Pattern", "PatternMatcher"]

_ANY = "?"
_Mode = Literal["exact", "first", "anywhere"]
_MODES: Mapping[str, _Mode] = {"+": "first", "*": "anywhere"}


@dataclass(frozen=True)
class Line:
    """One node of a pattern."""

    op: str
    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    mode: _Mode = "exact"


class Pattern:
    """A pattern, read from its text; raises ConfigError that shows the line at fault."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.nodes = [_read(line) for line in pattern.splitlines() if line.split()]

    def __repr__(self) -> str:
        """The text."""
        return self.pattern


def _read(line: str) -> Line:
    words = line.split()
    try:
        op, name, inputs, outputs = words[:4]
        mode: _Mode = _MODES.get(inputs[-1], "exact")
        first, second = int(inputs.rstrip("+*")), int(outputs.rstrip("+*"))
    except ValueError as error:
        raise ConfigError(
            f"pattern: '{line.strip()}': expected operator, name, number of inputs, number of "
            "outputs, then the names of both"
        ) from error
    names = words[4:]
    if len(names) != first + second:
        raise ConfigError(
            f"pattern: '{line.strip()}': {len(names)} names; expected {first} inputs and "
            f"{second} outputs"
        )
    return Line(op, name, tuple(names[:first]), tuple(names[first:]), mode)


class PatternMatcher:
    """What to look for, and by what to replace it. Subclasses give `name` and `rewrite`.

    Works on an `onnx_graphsurgeon` graph. `rewrite` returns {name: node} of dictionaries with op,
    inputs, outputs, attrs and domain, after it has detached what it replaces; an empty one means
    that nothing is to be done.
    """

    min_opset: int = 1
    max_opset: int | None = None

    def __init__(self, pattern: Pattern, priority: int = 1) -> None:
        self.pattern = pattern
        self.priority = priority
        self.pattern_dict = {line.name: line for line in pattern.nodes}
        ends = [line for line in pattern.nodes if line.op == "output"]
        if not ends or not ends[0].input_names or ends[0].input_names[0] not in self.pattern_dict:
            raise ConfigError("pattern: expected a line 'output NAME 1 0 NODE' for its last node")
        self._last = self.pattern_dict[ends[0].input_names[0]]

    @property
    def name(self) -> str:
        """The name by which the pattern can be skipped."""
        return type(self).__name__

    def rewrite(self, opset: int = 11) -> Mapping[str, Mapping[str, Any]]:
        """The nodes that take the place of those matched."""
        raise NotImplementedError(f"{type(self).__name__} has no method 'rewrite'")

    def parameter_check(self) -> bool:
        """Whether a match is one, beyond its form."""
        return True

    def applies_to(self, opset: int) -> bool:
        """Whether the pattern is for this opset."""
        return self.min_opset <= opset and (self.max_opset is None or opset <= self.max_opset)

    def match(self, node: Any) -> bool:
        """Whether the pattern ends in this node; the parts become attributes."""
        found: dict[str, Any] = {}
        if not self._fits(node, self._last, found):
            return False
        vars(self).update(found, output=node.outputs)
        return self.parameter_check()

    def has_intermediate_graph_output(self, outputs: Iterable[int]) -> bool:
        """Whether a node before the last computes an output of the graph, given by `id`."""
        ends = set(outputs)
        inner = (line for line in self.pattern.nodes if line.op not in ("input", "output"))
        parts = (vars(self).get(line.name) for line in inner if line is not self._last)
        return any(id(tensor) in ends for part in parts if part for tensor in part.outputs)

    def _fits(self, thing: Any, line: Line, found: dict[str, Any]) -> bool:
        """`thing` is a node, or a tensor that no node of interest computes."""
        if line.name in found:
            return found[line.name] is thing
        if line.op != "input" and getattr(thing, "op", None) != line.op:
            return False
        found[line.name] = thing
        if line.op == "input":
            return True
        given = feeds(thing)
        wanted = [None if n == _ANY else self.pattern_dict[n] for n in line.input_names]
        if len(given) < len(wanted) or (line.mode == "exact" and len(given) != len(wanted)):
            return False
        if line.mode == "anywhere":
            return all(self._somewhere(given, w, found) for w in wanted if w is not None)
        pairs = zip(given, wanted, strict=False)
        return all(w is None or self._fits(g, w, found) for g, w in pairs)

    def _somewhere(self, given: list[Any], line: Line, found: dict[str, Any]) -> bool:
        for thing in given:
            tried = dict(found)
            if self._fits(thing, line, tried):
                found.update(tried)
                return True
        return False


def feeds(node: Any) -> list[Any]:
    """What each input of a node comes from: a node, or the tensor itself.

    The tensor where no node computes it, and where a Split does, whose outputs differ.
    """
    return [t if not t.inputs or t.inputs[0].op == "Split" else t.inputs[0] for t in node.inputs]
