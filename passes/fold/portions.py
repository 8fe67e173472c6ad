"""Nodes that are computed together: few sessions, and not all large weights in memory at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxslim import ir
from onnxslim.ir import Node

PORTION = 8 << 20
"""Bytes of constants above which a portion is full."""


def portions(nodes: Sequence[Node]) -> Iterator[list[Node]]:
    """The nodes, in order within each portion; what depends on each other stays together."""
    part: list[Node] = []
    filled = 0
    for group in _connected(nodes):
        part += group
        filled += _constant_bytes(group)
        if filled > PORTION:
            yield part
            part, filled = [], 0
    if part:
        yield part


def _connected(nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes by what is connected through results, the first group first."""
    parent = {node: node for node in nodes}

    def root(node: Node) -> Node:
        while parent[node] is not node:
            parent[node] = node = parent[parent[node]]
        return node

    for node in nodes:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer in parent:
                parent[root(node)] = root(producer)
    groups: dict[Node, list[Node]] = {}
    for node in nodes:
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())


def _constant_bytes(nodes: Sequence[Node]) -> int:
    read = {value for node in nodes for value in node.inputs if value is not None}
    tensors = (ir.constant(value) for value in read)
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
