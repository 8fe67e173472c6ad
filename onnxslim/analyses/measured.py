"""Measured time of small models, such as one layer and what could take its place."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxslim import ir
from onnxslim.analyses.arrays_file import read, write
from onnxslim.ir import Array, Model
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.latency import interleaved_latency
from onnxslim.runtime.samples import Feed

_SECONDS = 0.5


def measured_ms(
    models: Sequence[Model], feed: Feed, env: Environment, seconds: float = _SECONDS
) -> tuple[float, ...]:
    """Milliseconds of one run of each model on the same feed, measured in turns.

    The answer for these models together is kept in the cache folder, by their content, the shapes
    of the feed, threads, machine and version of ONNX Runtime: only what was measured in turns
    can be compared.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run one of them.
    """

    def measure() -> Mapping[str, Array]:
        return {"ms": np.array(interleaved_latency(models, feed, env.threads, budget_s=seconds).ms)}

    return tuple(remembered("latency", models, feed, env, measure)["ms"].tolist())


def remembered(
    what: str,
    models: Sequence[Model],
    feed: Feed,
    env: Environment,
    measure: Callable[[], Mapping[str, Array]],
) -> Mapping[str, Array]:
    """What `measure` gives for these models, or what it gave in an earlier run on this machine
    with the same cache folder: decisions that depend on it are then the same."""
    path = None if env.cache is None else _file(what, models, feed, env, env.cache)
    if path is not None and (known := read(path)) is not None:
        return known
    found = measure()
    if path is not None:
        write(path, found)
    return found


def _file(what: str, models: Sequence[Model], feed: Feed, env: Environment, cache: Path) -> Path:
    import onnxruntime

    shapes = sorted((name, array.shape, str(array.dtype)) for name, array in feed.items())
    machine = (platform.machine(), platform.processor(), platform.node(), onnxruntime.__version__)
    checksums = [ir.checksum(model) for model in models]
    key = repr((checksums, shapes, env.threads, machine))
    return cache / what / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.npz"
