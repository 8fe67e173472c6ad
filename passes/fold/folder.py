"""Folding of one model: regions of constants found, computed and put in place, round by round."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Model, Node
from onnxslim.passes.fold.evaluate import Evaluation, evaluate
from onnxslim.passes.fold.growth import find_region
from onnxslim.passes.fold.region import Region, too_large
from onnxslim.passes.fold.replace import place, scalars_for_range
from onnxslim.pipeline.base import Declined


@dataclass
class Folder:
    """Computes what is constant. Knows what it gave up, which it does not try again."""

    editor: Editor
    max_bytes: int
    failed: dict[Node, str] = field(default_factory=dict[Node, str])
    large: list[Declined] = field(default_factory=list[Declined])

    def fold(self, facts: Facts) -> int:
        """Compute all that can be, leaving out what turns out to fail; how many results."""
        model = self.editor.model
        count = scalars_for_range(self.editor, model)
        while True:  # each turn but the last refuses at least one more node
            region = find_region(model, facts, self.max_bytes, self.failed)
            self.large = region.declined
            wanted = region.wanted()
            if not wanted:
                return count
            found = evaluate(region, wanted, model)
            bad = {**found.failed, **_unfit(region, found, model)}
            if not bad:
                return count + place(self.editor, region, found.results)
            self.failed |= bad

    def declined(self) -> tuple[Declined, ...]:
        """Nodes that are still in the model and are not computed: failed, or too large."""
        failed = (Declined(ir.label(n), why) for n, why in self.failed.items() if n.graph)
        return (*failed, *self.large)


def _unfit(region: Region, found: Evaluation, model: Model) -> dict[Node, str]:
    """Nodes whose result cannot stand in the model as a constant, which only its value told."""
    bad: dict[Node, str] = {}
    for value, result in found.results.items():
        node = value.producer()
        if node is None:
            continue
        allowed = region.nodes.get(node, result.nbytes)
        if result.nbytes > allowed:
            bad[node] = too_large(result.nbytes, allowed)
        elif value.is_graph_output() and "" not in model.opset_imports:
            bad[node] = "it is a graph output, and the model does not import Constant"
    return bad
