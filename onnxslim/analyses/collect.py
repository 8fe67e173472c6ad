"""One run of the samples through the model with some inner values as extra outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from onnxslim.analyses.observe import Observer, Unusable
from onnxslim.ir import Array, Model
from onnxslim.pipeline.base import Progress
from onnxslim.runtime.ahead import ahead
from onnxslim.runtime.blas import one_thread
from onnxslim.runtime.samples import Feed, Samples
from onnxslim.runtime.session import Session, open_part

_SAME = 1e-3
"""How far, relative to a tensor's largest magnitude, a value may move when samples are stacked.
Kernels round differently for other sizes (about 1e-6); samples that mix move by far more."""


@dataclass(frozen=True)
class Stream:
    """What streams through which model."""

    model: Model
    samples: Samples
    threads: int
    progress: Progress


def watch(
    stream: Stream, observers: Mapping[str, Observer], stack: int, what: str
) -> dict[str, Unusable]:
    """Show every sample to every observer; returns the tensors that could not be used, and why.

    Up to `stack` samples of equal shapes go through the model in one call, where that gives for
    the first two of them what they give alone. As many observers work at a time as the stream has
    threads, while the next call runs. Memory: the watched tensors of two calls, and what the
    observers add up.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    names = sorted(observers)
    session = open_part(stream.model, names, threads=stream.threads)
    if stack > 1 and not stackable(session, stream.samples, names):
        stack = 1
    bad: dict[str, Unusable] = {}
    some = groups(stream.samples, stack)
    runs = ((first, feeds, session.run(stacked(feeds), names)) for first, feeds in some)
    with one_thread(), ThreadPoolExecutor(max_workers=stream.threads) as pool:
        for first, feeds, tensors in ahead(runs):
            wanted = {name: tensors.pop(name) for name in names if name not in bad}
            bad |= _show_all(pool, observers, wanted, feeds, first)
            stream.progress(what, first + len(feeds), len(stream.samples))
    return bad


def _show_all(
    pool: Executor,
    observers: Mapping[str, Observer],
    tensors: dict[str, Array],
    feeds: Sequence[Feed],
    first: int,
) -> dict[str, Unusable]:
    """Show each tensor to its observer; a tensor is let go when its observer has seen it."""

    def show(name: str) -> Unusable | None:
        return _show(observers[name], parts_of(tensors.pop(name), len(feeds)), feeds, first)

    names = list(tensors)
    found = zip(names, pool.map(show, names), strict=True)
    return {name: reason for name, reason in found if reason is not None}


def _show(
    observer: Observer, parts: Sequence[Array], feeds: Sequence[Feed], first: int
) -> Unusable | None:
    for i, (part, feed) in enumerate(zip(parts, feeds, strict=True)):
        if (reason := observer.add(part, feed, first + i)) is not None:
            return reason
    return None


def groups(samples: Samples, stack: int) -> Iterator[tuple[int, list[Feed]]]:
    """Runs of at most `stack` neighbours with equal shapes, with the index of the first."""
    group: list[Feed] = []
    for index, feed in enumerate(samples):
        if group and (len(group) == stack or _shapes(group[0]) != _shapes(feed)):
            yield index - len(group), group
            group = []
        group.append(feed)
    if group:
        yield len(samples) - len(group), group


def _shapes(feed: Feed) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, str(array.dtype)) for name, array in feed.items()}


def stacked(feeds: Sequence[Feed]) -> Feed:
    """Several feeds as one, behind each other on the batch axis."""
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def parts_of(tensor: Array, count: int) -> list[Array]:
    """What belongs to each of `count` stacked samples."""
    return [tensor] if count == 1 else np.split(tensor, count)


def stackable(session: Session, samples: Samples, names: Sequence[str]) -> bool:
    """Whether the first two samples, run together, give what they give alone."""
    fixed = any(info.shape is None or not info.shape or isinstance(info.shape[0], int)
                for info in session.inputs if not info.optional)  # fmt: skip
    if fixed or len(samples) < 2:
        return False
    pair = [samples[0], samples[1]]
    if _shapes(pair[0]) != _shapes(pair[1]) or any(a.ndim == 0 for a in pair[0].values()):
        return False
    together = session.run(stacked(pair), names)
    for i, feed in enumerate(pair):
        alone = session.run(feed, names)
        if not all(_is_part(together[name], alone[name], i) for name in names):
            return False
    return True


def _is_part(together: Array, alone: Array, index: int) -> bool:
    if alone.ndim == 0 or together.shape != (2 * alone.shape[0], *alone.shape[1:]):
        return False
    part = np.split(together, 2)[index].astype(np.float64)
    single = alone.astype(np.float64)
    size = float(np.abs(single).max(initial=0.0))
    with np.errstate(invalid="ignore"):  # infinity minus itself is no number: not the same
        return bool(np.abs(part - single).max(initial=0.0) <= _SAME * size)
