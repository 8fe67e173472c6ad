"""The fold pass: what does not depend on the input is computed once, now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.bypass import inline_branches, remove_copies
from onnxslim.passes.fold.folder import Folder
from onnxslim.passes.fold.replace import constants_to_initializers
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, option

_ROUNDS = 20


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
        editor = Editor(model)
        folder = Folder(editor, self.max_bytes)
        counts = ("folded", "branches", "copies", "initializers", "dead")
        stats: dict[str, int] = dict.fromkeys(counts, 0)
        for _ in range(_ROUNDS):
            stats["dead"] += editor.remove_dead()
            branches, copies = inline_branches(editor, model), remove_copies(editor, model)
            folded = folder.fold(Facts(model))
            stats["branches"] += branches
            stats["copies"] += copies
            stats["folded"] += folded
            if branches + copies + folded == 0:
                break
        stats["initializers"] = constants_to_initializers(editor, model)
        stats["dead"] += editor.remove_dead()
        changed = Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS
        return PassResult(changed if any(stats.values()) else Aspect.NONE, stats, folder.declined())
