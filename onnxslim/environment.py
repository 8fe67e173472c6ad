"""What all passes of a run share: samples, target, workers."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from onnxslim import ir
from onnxslim.config import Request
from onnxslim.errors import ConfigError, DataError
from onnxslim.ir import Model
from onnxslim.pipeline.base import Environment, Progress
from onnxslim.runtime.data import Checked, DataSpec, load_samples, split
from onnxslim.runtime.samples import FeedList, Samples
from onnxslim.runtime.types import input_infos
from onnxslim.targets import get_target

HELD_OUT = 0.2  # share of the calibration samples kept for the check where no others are given


@contextmanager
def environment(model: Model, request: Request, progress: Progress) -> Generator[Environment]:
    """The environment of a run; its workers end with it, also after Ctrl-C.

    Raises DataError, ConfigError.
    """
    calib, evaluation = samples(model, request)
    made_up = _chosen(model, request) if request.check_inputs else None
    executor = ThreadPoolExecutor(max_workers=request.threads, thread_name_prefix="onnxslim")
    try:
        yield Environment(
            target=get_target(request.target),
            executor=executor,
            calib=calib,
            evaluation=evaluation,
            made_up=made_up,
            threads=request.threads,
            seed=request.seed,
            cache=request.cache,
            progress=progress,
        )
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def samples(model: Model, request: Request) -> tuple[Samples | None, Samples | None]:
    """Samples to calibrate and samples to check with; none is in both. Without a check all that
    are given calibrate. Raises DataError, ConfigError."""
    inputs = input_infos(model)
    loaded: list[Checked] = []

    def load(source: DataSpec | None) -> Samples | None:
        if source is None:
            return None
        loaded.append(load_samples(source, inputs, preprocess=request.preprocess))
        return loaded[-1]

    calib, evaluation = load(request.calib), None
    shared = request.eval is None or _same_source(request.calib, request.eval)
    if calib is not None and shared and request.check:
        calib, evaluation = split(calib, held_out=HELD_OUT, seed=request.seed)
    else:
        evaluation = load(request.eval)
    if request.preprocess is not None and not any(samples.images for samples in loaded):
        raise ConfigError("--preprocess is for folders of images, and none is given; drop it")
    return calib, evaluation


def _chosen(model: Model, request: Request) -> Samples:
    """One sample of sizes and arrays that the user chose; the rest is made up.

    Raises DataError, ConfigError, RuntimeUnavailable.
    """
    from onnxslim.runtime.synthesize import synthesize

    arrays = {
        name: _array(name, given)
        for name, given in request.check_inputs.items()
        if isinstance(given, Path)
    }
    shapes = {name: array.shape for name, array in arrays.items()}
    shapes |= {n: given for n, given in request.check_inputs.items() if isinstance(given, tuple)}
    twin = ir.snapshot(model)
    ir.set_input_shapes(twin, shapes)
    (feed,) = synthesize(twin, 1, request.seed, request.threads)
    return FeedList([{**feed, **arrays}])


def _array(name: str, path: Path) -> ir.Array:
    try:
        loaded: object = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{name}: {path}: cannot be read as an .npy file: {error}") from error
    if not isinstance(loaded, np.ndarray):
        raise DataError(f"{name}: {path}: expected an .npy file with one array")
    return cast("ir.Array", loaded)


def _same_source(one: DataSpec | None, other: DataSpec | None) -> bool:
    if isinstance(one, str | Path) and isinstance(other, str | Path):
        return Path(one).resolve() == Path(other).resolve()
    return one is other
