"""Equal initializers become one: of equal type, shape and bytes, in a graph or one around it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, ExternalTensor, Graph, Model, TensorProtocol, Value
from onnxslim.ir.tensors import location_of

_READ = 64 << 10  # bytes; weights of another file up to here are read
_SAMPLE = 4096  # bytes; larger tensors are compared in full only if so much at both ends is equal


@dataclass
class Sharing:
    """Finds equal initializers. Digests are kept, so that a second look costs little."""

    digests: dict[int, tuple[TensorProtocol, Hashable]] = field(
        default_factory=dict[int, tuple[TensorProtocol, Hashable]]
    )

    def share(self, editor: Editor, model: Model) -> int:
        """Let readers of equal initializers read the first of them; how many went out of use.

        Weights in other files are compared by their place in the file; only small ones are read.
        Those that callers can override and graph outputs stay apart.
        """
        groups: dict[Hashable, list[tuple[Value, tuple[Graph, ...]]]] = defaultdict(list)
        for value, around in _initializers(model):
            tensor = value.const_value
            if tensor is not None and ir.is_fixed(value) and not value.is_graph_output():
                kind = (tensor.dtype, tuple(tensor.shape.numpy()))
                groups[kind].append((value, around))
        alike = [group for group in groups.values() if len(group) > 1]
        return sum(self._share_group(editor, group) for group in alike)

    def _share_group(self, editor: Editor, group: Iterable[tuple[Value, tuple[Graph, ...]]]) -> int:
        count = 0
        first: dict[tuple[Hashable, Graph], Value] = {}
        for value, around in group:
            digest = self._digest(value.const_value)
            equal = next((v for g in around if (v := first.get((digest, g))) is not None), None)
            if equal is None or not _same(equal.const_value, value.const_value):
                first.setdefault((digest, around[-1]), value)
                continue
            if uses := [(use.node, use.idx) for use in value.uses()]:
                editor.rewire(uses, equal)
                count += 1
        return count

    def _digest(self, tensor: TensorProtocol | None) -> Hashable:
        assert tensor is not None
        found = self.digests.get(id(tensor))
        if found is None or found[0] is not tensor:
            found = self.digests[id(tensor)] = (tensor, _digest(tensor))
        return found[1]


def _initializers(model: Model) -> Iterator[tuple[Value, tuple[Graph, ...]]]:
    """Each with the graphs that can see it or around it, the outermost first, its own last."""
    stack: list[tuple[Graph, tuple[Graph, ...]]] = [(model.graph, ())]
    while stack:
        graph, outer = stack.pop()
        around = (*outer, graph)
        for value in graph.initializers.values():
            yield value, around
        inner = [g for node in graph if node.attributes for g in ir.subgraphs(node)]
        stack.extend((g, around) for g in reversed(inner))


def _digest(tensor: TensorProtocol) -> Hashable:
    if tensor.dtype == ir.DataType.STRING:
        return tuple(tensor.numpy().ravel().tolist())
    if isinstance(tensor, ExternalTensor) and tensor.nbytes > _READ:
        return (*location_of(tensor), tensor.offset)
    if isinstance(tensor, ir.LazyTensor) and tensor.nbytes > _READ:
        return id(tensor)  # not computed yet
    data = _bytes(tensor)
    ends = data.tobytes() if data.nbytes <= 2 * _SAMPLE else _ends(data)
    return hashlib.blake2b(ends, digest_size=16).digest()


def _ends(data: ir.Array) -> bytes:
    return bytes(data[:_SAMPLE].tobytes() + data[-_SAMPLE:].tobytes())


def _same(one: TensorProtocol | None, other: TensorProtocol | None) -> bool:
    """Of tensors of equal type, shape and digest: whether all bytes are equal."""
    if one is None or other is None or one is other:
        return one is other
    if one.dtype == ir.DataType.STRING or one.nbytes <= 2 * _SAMPLE:
        return True
    if isinstance(one, ExternalTensor) and one.nbytes > _READ:
        return isinstance(other, ExternalTensor)
    return bool(np.array_equal(_bytes(one), _bytes(other)))


def _bytes(tensor: TensorProtocol) -> ir.Array:
    """The bytes of a tensor, a view where it can be one."""
    array = tensor.numpy()
    if array.dtype.itemsize * array.size == tensor.nbytes and array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8)
    return np.frombuffer(tensor.tobytes(), np.uint8)
