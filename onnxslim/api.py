"""The compiler as a library: one function."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from onnxslim import ir
from onnxslim.config import Request, read_names, read_passes, read_shapes
from onnxslim.driver import Watch, compile_file, compile_model
from onnxslim.errors import ConfigError
from onnxslim.ir.files import check_target
from onnxslim.pipeline.base import Pass, Progress, silent
from onnxslim.pipeline.spec import PassSpec
from onnxslim.report.record import Report
from onnxslim.runtime.data import DataSpec
from onnxslim.runtime.images import Preprocess

M = TypeVar("M")


@dataclass(frozen=True)
class Compressed(Generic[M]):
    """A compressed model, of the kind that was given, and all that is known about it."""

    model: M
    report: Report


def compress(
    model: M,
    output: str | os.PathLike[str] | None = None,
    *,
    passes: str | Iterable[Pass | PassSpec | str] = "simplify",
    calib: DataSpec | None = None,
    eval: DataSpec | None = None,
    metric: str | None = None,
    max_drop: float | None = None,
    target: str = "ort-cpu",
    preprocess: str | Preprocess | None = None,
    threads: int = 1,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    keep_best: bool = False,
    allow_slower: bool = False,
    check: bool = True,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: str | Sequence[str] = (),
    outputs: str | Sequence[str] = (),
    dump: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Compressed[M]:
    """A smaller and faster model that was checked against the one given, which stays as it is.

    Args:
        model: A path, serialized bytes, an `onnx.ModelProto`, an `onnx_ir.Model` or a `gs.Graph`.
            The result is of the same kind; for a path it is the path of the output.
        output: Where to save the result; needed for a path, possible for all kinds.
        passes: The pipeline as text, `"quant,lowrank{ratio=0.5}"`, or a list of such texts and
            pass objects.
        calib: Samples of real inputs: a path (.npz, folder), `"module:function"`, a mapping from
            input name to an array with samples on axis 0, or an iterable of feeds.
        eval: Other samples for the check, with labels under `labels`; without them a fifth of
            `calib` is held out.
        metric: `top1`, `agreement`, `sqnr`, `cosine`, or `"module:function"` that maps outputs
            and labels to a number, higher is better.
        max_drop: By how much the metric may fall, in its own units (0.01 is a point of top1).
        target: The runtime to compile for.
        preprocess: How images of a folder become inputs, as for `--preprocess`.
        threads: Threads of ONNX Runtime, for running and for timing.
        seed: Seed of everything random; the same seed gives the same bytes.
        cache: A folder for statistics and timings.
        keep_best: When the check fails, return the last state that passes.
        allow_slower: Keep what passes did also where the model became slower by it.
        check: False: nothing is run, so that outputs and speed are not compared.
        input_shapes: Static sizes of inputs, `{"x": (1, 3, 224, 224)}`; a size that has a name
            is set wherever the name stands, and -1 leaves a size as it is.
        inputs: Values of the main graph that become its inputs, `"x"` or `"x:fp16"`.
        outputs: Values of the main graph that become its outputs; what they do not depend on
            goes away.
        dump: A folder for the model after each pass.
        progress: Called as `progress(what, done, total)`.

    Raises:
        onnxslim.errors.OnnxSlimError: Something given is wrong; one line says what to do.
        onnxslim.errors.CheckFailed: The result is not good enough; its `report` says by how much.
        onnxslim.errors.PassError: A pass broke; names the folder of a reproducer.
    """
    request = Request(
        passes=read_passes(passes),
        calib=calib,
        eval=eval,
        metric=metric,
        max_drop=max_drop,
        target=target,
        preprocess=preprocess,
        threads=threads,
        seed=seed,
        cache=_path(cache),
        keep_best=keep_best,
        allow_slower=allow_slower,
        check=check,
        input_shapes=read_shapes(input_shapes or {}),
        inputs=read_names("inputs", inputs) if inputs else (),
        outputs=read_names("outputs", outputs) if outputs else (),
        dump=_path(dump),
    )
    if isinstance(model, str | os.PathLike):
        return _file(model, output, request, progress)
    return _object(model, _path(output), request, progress)


def _file(model: Any, output: Any, request: Request, progress: Progress) -> Compressed[Any]:
    if output is None:
        raise ConfigError(f"{model}: a path was given, so the result needs a path too: `output`")
    report = compile_file(Path(model), Path(output), request, Watch(progress))
    return Compressed(str(output) if isinstance(model, str) else Path(output), report)


def _object(model: M, output: Path | None, request: Request, progress: Progress) -> Compressed[M]:
    kind = ir.kind_of(model)
    if output is not None:
        check_target(output)
    result, report = compile_model(ir.load(model), request, Watch(progress))
    report = replace(report, input=kind, output=kind)
    if output is not None:
        ir.save(result, output)
        report = replace(report, output=str(output))
    return Compressed(ir.to_kind(result, kind), report)


def _path(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)
