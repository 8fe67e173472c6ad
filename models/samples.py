"""Samples on disk: a `.npz` stacked on axis 0, or a folder with one `.npz` per sample.

Labels, where there are any, are an array called `labels`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = dict[str, Array]
LABELS = "labels"


def save_stacked(path: Path, **arrays: Array) -> None:
    """One file; every array has one sample per row of axis 0."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"arrays of one file must have one length, got {lengths}")
    _save(path, arrays)


def save_folder(folder: Path, samples: Iterable[Mapping[str, Array]]) -> None:
    """One file per sample, numbered; the arrays are fed to the model as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(samples):
        _save(folder / f"{number:05d}.npz", sample)


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(path, **arrays)


def read_samples(path: Path) -> Iterator[tuple[Feeds, Array | None]]:
    """Each sample's inputs with a leading batch axis, and its label."""
    return _read_folder(path) if path.is_dir() else _read_stacked(path)


def _load(path: Path) -> tuple[Feeds, Array | None]:
    with np.load(path, allow_pickle=False) as content:
        arrays = dict(content)
    labels = arrays.pop(LABELS, None)
    return arrays, labels


def _read_folder(folder: Path) -> Iterator[tuple[Feeds, Array | None]]:
    return map(_load, sorted(folder.glob("*.npz")))


def _read_stacked(path: Path) -> Iterator[tuple[Feeds, Array | None]]:
    arrays, labels = _load(path)
    for row in range(len(next(iter(arrays.values())))):
        feeds = {name: array[row : row + 1] for name, array in arrays.items()}
        yield feeds, None if labels is None else labels[row]
