"""What the rules of this folder share: readers, axes and pads in either form, removal of a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.rewrite import Rewrite, Rule

Same = Callable[[Node, Facts], "Value | str | None"]
"""The input that the first output always equals, the reason against, or None."""


def removal(name: str, ops: Iterable[str], same: Same, summary: str, *, exact: bool = True) -> Rule:
    """The rule that removes a node whose first output always equals one of its inputs."""

    def match(node: Node, facts: Facts) -> Rewrite | str | None:
        if has_references(node):
            return "it takes attributes from its function"
        found = same(node, facts)
        if not isinstance(found, Value):
            return found
        value = found
        if any(is_read(output) for output in node.outputs[1:]):
            return "its other outputs are read"
        return lambda editor: bypass(editor, node, value)

    return Rule(name, frozenset(ops), match, summary, exact)


def bypass(editor: Editor, node: Node, value: Value) -> Sequence[Node]:
    """Let all that read a node's first output read the value."""
    touched = readers(node.outputs[0])
    before = value.producer()
    editor.bypass(node, value)
    return [*([before] if before is not None else []), *touched]


def readers(value: Value) -> list[Node]:
    """The nodes of the model that read a value, each once."""
    return list(dict.fromkeys(use.node for use in value.uses() if use.node.graph is not None))


def is_read(value: Value) -> bool:
    """Whether anything depends on a value."""
    return bool(value.uses()) or value.is_graph_output()


def is_private(value: Value, reader: Node) -> bool:
    """Whether only this node, in the same graph, reads the value, once."""
    producer = value.producer()
    return (
        producer is not None
        and producer.graph is reader.graph
        and len(value.uses()) == 1
        and not value.is_graph_output()
    )


def has_references(node: Node) -> bool:
    """Whether attributes differ from call to call of the node's function."""
    return any(attribute.is_ref() for attribute in node.attributes.values())


def given(node: Node, index: int) -> Value | None:
    """An input, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def integers(node: Node, facts: Facts, name: str, index: int) -> tuple[int, ...] | None:
    """Integers from an attribute in old opsets, from an input in new ones; None if unknown.

    What is absent is unknown too: see `is_absent`.
    """
    if name in node.attributes:
        return tuple(int(i) for i in ir.attribute(node, name))
    value = given(node, index)
    content = None if value is None else facts.content(value)
    if content is None:
        return None
    numbers = tuple(i for i in content if isinstance(i, int))
    return numbers if len(numbers) == len(content) else None


def is_absent(node: Node, name: str, index: int) -> bool:
    """Whether neither the attribute nor the input is there."""
    return name not in node.attributes and given(node, index) is None
