"""Computing nodes by running them: all together in ONNX Runtime, else one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxslim import ir
from onnxslim.errors import OnnxSlimError
from onnxslim.ir import Array, Model, Node, TensorProtocol, Value
from onnxslim.passes.fold.portions import portions
from onnxslim.passes.fold.region import Region
from onnxslim.passes.fold.semantics import DOMAINS
from onnxslim.runtime.session import open_session

Content = Array | TensorProtocol


@dataclass(frozen=True)
class Evaluation:
    """Results of the values asked for, and the nodes that could not be computed and why."""

    results: dict[Value, Array]
    failed: dict[Node, str]


def evaluate(region: Region, wanted: Sequence[Value], model: Model) -> Evaluation:
    """The wanted results of a region, each function's and the main graph's operator sets apart.

    ONNX Runtime runs them in few sessions without optimizations, so that what is folded is what it
    would compute. Where it lacks an operator, nodes run one by one, there or in ONNX's
    reference implementation. A result that is no tensor counts as failed.
    """
    results = {value: region.known[value] for value in wanted if value in region.known}
    failed: dict[Node, str] = {}
    groups = _by_opset(region.nodes, model).items()
    for version, nodes in ((version, part) for version, all_ in groups for part in portions(all_)):
        own = set(nodes)
        targets = [v for v in wanted if v.producer() in own and v not in results]
        constants = _constants(nodes, region)
        found: Mapping[Value, Any]
        broken: dict[Node, str] = {}
        try:
            found = _run(nodes, constants, targets, version)
        except OnnxSlimError:
            found, broken = _one_by_one(nodes, constants, version)
        for value in targets:
            if isinstance(result := found.get(value), np.ndarray):
                results[value] = result.copy()  # its buffer is part of a larger block
        ir.forget_mapped()
        failed |= broken or {
            node: "its result is not a tensor"
            for value in targets
            if value not in results and (node := value.producer()) is not None
        }
    return Evaluation(results, failed)


OpsetKey = tuple[tuple[str, int], ...]


def _by_opset(nodes: Iterable[Node], model: Model) -> dict[OpsetKey, list[Node]]:
    main = _key(model.opset_imports)
    inside = {
        node: _key(function.opset_imports)
        for function in model.functions.values()
        for scope in ir.scope_tree(function)
        for node in scope
    }
    groups: dict[OpsetKey, list[Node]] = {}
    for node in nodes:
        groups.setdefault(inside.get(node, main), []).append(node)
    return groups


def _key(imports: Mapping[str, int]) -> OpsetKey:
    return tuple(sorted((d, version) for d, version in imports.items() if d in DOMAINS))


def _constants(nodes: Iterable[Node], region: Region) -> dict[Value, Content]:
    """What the nodes read from outside."""
    found: dict[Value, Content] = {}
    for node in nodes:
        for value in node.inputs:
            if value is None or value in found or value.producer() in region.nodes:
                continue
            tensor = region.known.get(value, ir.constant(value))
            assert tensor is not None
            found[value] = tensor
    return found


def _run(
    nodes: Sequence[Node],
    constants: dict[Value, Content],
    targets: Sequence[Value],
    opset: OpsetKey,
    reference: bool = False,
) -> dict[Value, Any]:
    """Raises OnnxSlimError where the nodes cannot be run."""
    if not targets:
        return {}
    twins = {v: _initializer(f"c{i}", tensor) for i, (v, tensor) in enumerate(constants.items())}
    copies = [_copy(node, twins, i) for i, node in enumerate(nodes)]
    initializers = [twins[value] for value in constants]
    outputs = [twins[value] for value in targets]
    graph = ir.Graph(
        (), outputs, nodes=copies, initializers=initializers, opset_imports=dict(opset), name="fold"
    )
    model = ir.Model(graph, ir_version=10)
    names = [str(output.name) for output in outputs]
    run = ir.run_reference(model, {}) if reference else open_session(model, optimize="none").run({})
    return {value: run[name] for value, name in zip(targets, names, strict=True)}


def _initializer(name: str, content: Content) -> Value:
    tensor = ir.make_tensor(content, name)
    value = Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
    value.const_value = tensor
    return value


def _copy(node: Node, twins: dict[Value, Value], number: int) -> Node:
    inputs = [None if value is None else twins[value] for value in node.inputs]
    copy = Node(
        node.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        num_outputs=len(node.outputs),
        name=f"n{number}",
    )
    for i, (old, new) in enumerate(zip(node.outputs, copy.outputs, strict=True)):
        new.name = f"n{number}_{i}" if old.name else ""
        twins[old] = new
    return copy


def _one_by_one(
    nodes: Sequence[Node], constants: dict[Value, Content], opset: OpsetKey
) -> tuple[dict[Value, Content], dict[Node, str]]:
    """All results that can be had; what depends on a failed node is left out without a word."""
    values: dict[Value, Content] = dict(constants)
    failed: dict[Node, str] = {}
    for node in nodes:
        inputs = [value for value in node.inputs if value is not None]
        if not all(value in values for value in inputs):
            continue
        targets = [value for value in node.outputs if value.name]
        try:
            found = _run_one(node, {value: values[value] for value in inputs}, targets, opset)
        except OnnxSlimError as error:
            failed[node] = str(error)
        else:
            values |= {v: result for v, result in found.items() if isinstance(result, np.ndarray)}
    return values, failed


def _run_one(
    node: Node, own: dict[Value, Content], targets: Sequence[Value], opset: OpsetKey
) -> dict[Value, Any]:
    try:
        return _run([node], own, targets, opset)
    except OnnxSlimError:
        return _run([node], own, targets, opset, reference=True)
