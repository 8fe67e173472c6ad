"""One run of the pass, as its tests need it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.passes.distill.distill import Distill
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.targets import get_target


def distill(
    original: Model, student: Model, calib: Sequence[Feed], cache: Path | None = None,
    progress: Any = None, **options: Any,
) -> PassResult:  # fmt: skip
    """Trains the student in place."""
    with ThreadPoolExecutor(1) as executor:
        env = Environment(
            get_target("ort-cpu"), executor, calib=FeedList(calib), cache=cache, threads=1
        )
        env = env if progress is None else replace(env, progress=progress)
        context = Context(env, AnalysisManager(student, env), original)
        result = Distill(**options).run(student, context)
    ir.verify(student)
    return result
