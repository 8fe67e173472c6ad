"""The kinds of sources that samples come from, before they are checked against a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim.errors import DataError
from onnxslim.runtime.fit import LABELS, require_names
from onnxslim.runtime.guards import is_list, is_mapping, is_pair
from onnxslim.runtime.npz import MappedNpz
from onnxslim.runtime.samples import Array, Feed, Samples
from onnxslim.runtime.types import TensorInfo
from onnxslim.scratch import Scratch

_IN_MEMORY = 256_000_000  # bytes of feeds of an iterable before they go to a temporary folder
_MOST = 1_000_000  # samples of an iterable: one that never ends must not fill the disk


class Stacked(Samples):
    """Arrays with the samples on axis 0, cut into what one run of the model takes.

    An array of the input's own rank is cut along axis 0 into pieces of the model's batch size (1
    where that is free); an array of one rank more holds a whole feed per row.
    """

    def __init__(
        self, arrays: Mapping[str, Array], inputs: Sequence[TensorInfo], where: str
    ) -> None:
        require_names(arrays, inputs, where)
        self.names = tuple(arrays)
        self._parts = {i.name: _Rows(arrays[i.name], i, where) for i in inputs if i.name in arrays}
        counts = {name: len(rows) for name, rows in self._parts.items()}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"'{name}' {count}" for name, count in counts.items())
            raise DataError(f"{where}: the arrays hold different numbers of samples: {found}")
        self._count = next(iter(counts.values()), 0)
        labels = arrays.get(LABELS) if LABELS not in self._parts else None
        self._labels = None if labels is None else self._grouped(labels, where)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Feed:
        return {name: rows[index] for name, rows in self._parts.items()}

    @property
    def labels(self) -> Sequence[Array] | None:
        return self._labels

    def _grouped(self, labels: Array, where: str) -> list[Array]:
        """One label array per sample: a row, or the rows of its batch."""
        length = len(labels) if labels.ndim else 0
        if length == self._count:
            return [np.asarray(labels[i]) for i in range(length)]
        size = max((rows.size for rows in self._parts.values()), default=1)
        rows = max((rows.rows for rows in self._parts.values()), default=0)
        if length != rows:
            raise DataError(f"{where}: {length} labels for {rows} samples; give one for each")
        return [np.asarray(labels[i * size : (i + 1) * size]) for i in range(self._count)]


class _Rows:
    """One stacked array as a sequence of what is fed."""

    def __init__(self, array: Array, info: TensorInfo, where: str) -> None:
        if array.ndim == 0:
            raise DataError(
                f"{where}: input '{info.name}': a single number; stack the samples on axis 0"
            )
        self._array = array
        self._whole = info.shape is not None and array.ndim == len(info.shape) + 1
        batch = info.shape[0] if info.shape else None
        self.size = batch if isinstance(batch, int) and batch > 0 and not self._whole else 1
        self.rows = len(array)
        if 0 < self.rows < self.size:
            raise DataError(
                f"{where}: input '{info.name}': {self.rows} rows; the model takes batches of "
                f"{self.size}, so give at least that many"
            )

    def __len__(self) -> int:
        return self.rows // self.size  # rows beyond the last full batch are left out

    def __getitem__(self, index: int) -> Array:
        if self._whole:
            return np.asarray(self._array[index])
        return np.asarray(self._array[index * self.size : (index + 1) * self.size])


class NpzFolder(Samples):
    """A folder of `.npz` files in the order of their names, each fed as it is."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._labels = _labels_of(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Feed:
        content = MappedNpz(self._files[index])
        return {name: np.array(array) for name, array in content.items()}

    @property
    def labels(self) -> Sequence[Array] | None:
        return self._labels


def _labels_of(files: Sequence[Path]) -> list[Array] | None:
    labels = [
        np.array(content[LABELS]) if LABELS in content else None
        for content in map(MappedNpz, files)
    ]
    known = [label for label in labels if label is not None]
    if not known:
        return None
    if len(known) < len(files):
        bare = files[[label is None for label in labels].index(True)]
        raise DataError(f"{bare}: no labels, but other files of the folder have some")
    return known


def collect(items: Iterable[Any], where: str) -> Samples:
    """The feeds of an iterable, read once and kept: the first in memory, the rest on disk.

    Each item is a feed (name -> array) or a pair of a feed and its label. Raises DataError.
    """
    kept = _Kept()
    labels: list[Array] = []
    for number, item in enumerate(items):
        if number >= _MOST:
            raise DataError(f"{where}: more than {_MOST} samples; let the iterable end earlier")
        feed, label = _parted(item, f"{where}: sample {number}")
        kept.add(feed)
        labels += [] if label is None else [label]
        if labels and len(labels) != number + 1:
            raise DataError(f"{where}: only some of the samples have a label; give all or none")
    return Labelled(kept, labels) if labels else kept


def _parted(item: Any, where: str) -> tuple[Feed, Array | None]:
    """A feed and its label, which may stand beside it or in it."""
    label: Any = None
    if is_pair(item):
        item, label = item
    if not is_mapping(item):
        raise DataError(
            f"{where}: a {type(item).__name__}; expected a dict of input name -> array, "
            "or a pair of such a dict and a label"
        )
    feed = dict(item)
    label = feed.get(LABELS) if label is None else label
    return feed, None if label is None else np.asarray(label)


class _Kept(Samples):
    """Feeds in memory up to a limit, and from there on in a temporary folder."""

    def __init__(self) -> None:
        self._feeds: list[Feed | Path] = []
        self._bytes = 0
        self._folder: Scratch | None = None

    def add(self, feed: Feed) -> None:
        """Keep one more; lists and objects stay in memory."""
        if self._bytes > _IN_MEMORY and all(_is_plain(value) for value in feed.values()):
            self._feeds.append(self._written(feed))
        else:
            self._bytes += size_of(feed)
            self._feeds.append(feed)

    def __len__(self) -> int:
        return len(self._feeds)

    def __getitem__(self, index: int) -> Feed:
        feed = self._feeds[index]
        return dict(MappedNpz(feed)) if isinstance(feed, Path) else feed

    def _written(self, feed: Feed) -> Path:
        self._folder = self._folder or Scratch()
        path = self._folder.path / f"{len(self._feeds)}.npz"
        np.savez(path, allow_pickle=False, **feed)
        return path


def size_of(feed: Feed) -> int:
    """The bytes of a feed's arrays."""
    parts = [part for value in feed.values() for part in (value if is_list(value) else [value])]
    return sum(np.asarray(part).nbytes for part in parts)


def _is_plain(value: Any) -> bool:
    """Whether a value survives an `.npz`: an array of a type that numpy itself has."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufcUS"


class Labelled(Samples):
    """Other samples with these labels."""

    def __init__(self, base: Samples, labels: Sequence[Array]) -> None:
        self._base = base
        self._labels = labels

    def __len__(self) -> int:
        return len(self._base)

    def __getitem__(self, index: int) -> Feed:
        return self._base[index]

    @property
    def labels(self) -> Sequence[Array] | None:
        return self._labels
