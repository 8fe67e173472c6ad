"""The fold pass: what does not depend on the input is computed once, now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from onnxslim import ir
from onnxslim.ir import Editor, Model, Node
from onnxslim.passes.fold.bypass import inline_branches, remove_copies
from onnxslim.passes.fold.evaluate import Evaluation, evaluate
from onnxslim.passes.fold.region import Region, Search, too_large
from onnxslim.passes.fold.replace import constants_to_initializers, place, scalars_for_range
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Pass, PassResult, option

_ROUNDS = 20


@dataclass
class _Refused:
    """What is not computed: nodes that failed, and those that would become too large."""

    failed: dict[Node, str] = field(default_factory=dict[Node, str])
    large: list[Declined] = field(default_factory=list[Declined])

    def declined(self) -> tuple[Declined, ...]:
        """Of the nodes that are still in the model."""
        failed = (Declined(ir.label(n), why) for n, why in self.failed.items() if n.graph)
        return (*failed, *self.large)


@dataclass(frozen=True, kw_only=True)
class Fold(Pass):
    """Constant folding and the removal of what has no effect, in all scopes; outputs stay equal.

    nodes over constants only -> their result, computed by ONNX Runtime or ONNX's reference
    Shape, Size, Gather of Shape, where the sizes always are the same -> constant
    If with a constant condition -> its branch
    Identity, Dropout -> their input
    Constant -> initializer
    nodes and initializers that nothing depends on -> gone

    Never computed: what is random, of another domain or holds graphs, and quantization. A result
    over `max_bytes` must not be larger than the constants that go away with its node.
    """

    name: ClassVar[str] = "fold"
    summary: ClassVar[str] = (
        "computes what does not depend on the input; removes what has no effect"
    )

    max_bytes: int = option(1 << 20, "largest constant that may be added, in bytes", "0 or more")

    def __post_init__(self) -> None:
        """Check the range."""
        if self.max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {self.max_bytes}")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Repeat until nothing changes: a folded shape makes other shapes known."""
        editor, refused = Editor(model), _Refused()
        counts = ("folded", "branches", "copies", "initializers", "dead")
        stats: dict[str, int] = dict.fromkeys(counts, 0)
        for _ in range(_ROUNDS):
            stats["dead"] += editor.remove_dead()
            branches, copies = inline_branches(editor, model), remove_copies(editor, model)
            folded = scalars_for_range(editor, model) + self._fold(editor, model, refused)
            stats["branches"] += branches
            stats["copies"] += copies
            stats["folded"] += folded
            if branches + copies + folded == 0:
                break
        stats["initializers"] = constants_to_initializers(editor, model)
        stats["dead"] += editor.remove_dead()
        changed = Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS
        return PassResult(
            changed if any(stats.values()) else Aspect.NONE, stats, refused.declined()
        )

    def _fold(self, editor: Editor, model: Model, refused: _Refused) -> int:
        """Compute all that can be, leaving out what turns out to fail; how many results."""
        types = ir.infer_types(model)
        while True:  # each turn but the last refuses at least one more node
            region = Search(model, types, self.max_bytes, refused.failed).region()
            refused.large = region.declined
            wanted = region.wanted()
            if not wanted:
                return 0
            found = evaluate(region, wanted, model)
            bad = {**found.failed, **_unfit(region, found, model)}
            if not bad:
                return place(editor, region, found.results)
            refused.failed |= bad


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
