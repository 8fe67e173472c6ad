"""What all passes of a run share: samples, target, workers."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from onnxslim.config import Request
from onnxslim.ir import Model
from onnxslim.pipeline.base import Environment, Progress
from onnxslim.runtime.data import DataSpec, load_samples, split
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.types import input_infos
from onnxslim.targets import get_target

HELD_OUT = 0.2  # share of the calibration samples kept for the check where no others are given


@contextmanager
def environment(model: Model, request: Request, progress: Progress) -> Generator[Environment]:
    """The environment of a run; its workers end with it, also after Ctrl-C.

    Raises DataError, ConfigError.
    """
    calib, evaluation = samples(model, request)
    executor = ThreadPoolExecutor(max_workers=request.threads, thread_name_prefix="onnxslim")
    try:
        yield Environment(
            target=get_target(request.target),
            executor=executor,
            calib=calib,
            evaluation=evaluation,
            threads=request.threads,
            seed=request.seed,
            cache=request.cache,
            progress=progress,
        )
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def samples(model: Model, request: Request) -> tuple[Samples | None, Samples | None]:
    """Samples to calibrate and samples to check with; none is in both."""
    inputs = input_infos(model)

    def load(source: DataSpec) -> Samples:
        return load_samples(source, inputs, preprocess=request.preprocess)

    if request.calib is not None and (
        request.eval is None or _same_source(request.calib, request.eval)
    ):
        return split(load(request.calib), held_out=HELD_OUT, seed=request.seed)
    calib = None if request.calib is None else load(request.calib)
    return calib, None if request.eval is None else load(request.eval)


def _same_source(one: DataSpec, other: DataSpec) -> bool:
    if isinstance(one, str | Path) and isinstance(other, str | Path):
        return Path(one).resolve() == Path(other).resolve()
    return one is other
