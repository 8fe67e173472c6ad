"""Calibration and evaluation data from wherever they are, checked against a model's inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim.errors import DataError
from onnxslim.runtime.fit import fit_feed, unknown_names
from onnxslim.runtime.guards import is_iterable, is_mapping
from onnxslim.runtime.images import ImageFolder, Preprocess, find_images
from onnxslim.runtime.imports import described, import_function, is_function_name
from onnxslim.runtime.npz import MappedNpz
from onnxslim.runtime.samples import Array, Feed, Samples
from onnxslim.runtime.sources import NpzFolder, Stacked, collect, size_of
from onnxslim.runtime.types import TensorInfo

_CHECKED_AHEAD = 2 * 2**30  # bytes; what lies beyond is checked when it is read

DataSpec = str | Path | Mapping[str, Any] | Iterable[Any]
"""A path or `module:function`, arrays stacked on axis 0, or feeds one by one."""


def load_samples(
    spec: DataSpec, inputs: Sequence[TensorInfo], preprocess: str | Preprocess | None = None
) -> Checked:
    """Samples for a model, read lazily; those of an iterable are read once and kept.

    `spec` is an `.npz` (one array per input, samples on axis 0, labels under `labels`), a folder
    of `.npz` (one per sample), a folder of images (with `preprocess`), `module:function` that
    gives any of the following, a mapping of stacked arrays, or an iterable of feeds, each alone
    or paired with its label.

    Raises:
        DataError: nothing there, or it does not fit the model; one line says what and where.
    """
    found = _found(spec, inputs, preprocess)
    where = str(spec) if isinstance(spec, (str, Path)) else "the samples"
    if len(found) == 0:
        raise DataError(f"{where}: no samples; give at least one")
    checked = Checked(found, inputs, where)
    checked.check(1 if isinstance(found, ImageFolder) else len(found))
    return checked


def _found(spec: DataSpec, inputs: Sequence[TensorInfo], how: str | Preprocess | None) -> Samples:
    if isinstance(spec, (str, Path)):
        path = Path(spec)
        if path.is_dir():
            return _from_folder(path, inputs, how)
        if path.is_file() or not is_function_name(str(spec)):
            return _from_file(path, inputs)
        return _from_function(str(spec), inputs)
    return _from_object(spec, inputs, "the samples")


def _from_file(path: Path, inputs: Sequence[TensorInfo]) -> Samples:
    if not path.exists():
        raise DataError(f"{path}: no such file; expected an .npz, a folder, or module:function")
    if path.suffix != ".npz":
        raise DataError(f"{path}: expected an .npz, a folder of .npz or images, or module:function")
    return Stacked(MappedNpz(path), inputs, str(path))


def _from_folder(
    folder: Path, inputs: Sequence[TensorInfo], how: str | Preprocess | None
) -> Samples:
    if files := sorted(folder.glob("*.npz")):
        return NpzFolder(files)
    images = find_images(folder)
    if not images:
        raise DataError(f"{folder}: holds no .npz files and no images")
    if how is None:
        raise DataError(
            f"{folder}: {len(images)} images; say how the model was trained to see them with "
            "--preprocess, such as 'size=256 crop=224 mean=0.485,0.456,0.406 "
            "std=0.229,0.224,0.225 scale=1/255 layout=nchw'"
        )
    how = Preprocess.parse(how) if isinstance(how, str) else how
    return ImageFolder(folder, images, inputs, how)


def _from_function(name: str, inputs: Sequence[TensorInfo]) -> Samples:
    function = import_function(name)
    try:
        return _from_object(function(), inputs, name)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: the function failed: {described(error)}") from error


def _from_object(spec: Any, inputs: Sequence[TensorInfo], where: str) -> Samples:
    if isinstance(spec, Samples):
        return spec
    if is_mapping(spec):
        return Stacked({k: np.asarray(v) for k, v in spec.items()}, inputs, where)
    if isinstance(spec, np.ndarray):
        names = ", ".join(f"'{i.name}': ..." for i in inputs)
        raise DataError(f"{where}: an array; say which input it is for: {{{names}}}")
    if is_iterable(spec):
        return collect(spec, where)
    raise DataError(
        f"{where}: a {type(spec).__name__}; expected a mapping of arrays or an iterable of feeds"
    )


class Checked(Samples):
    """Other samples, each fitted to the model's inputs when it is read."""

    def __init__(self, base: Samples, inputs: Sequence[TensorInfo], where: str) -> None:
        self._base = base
        self._inputs = tuple(inputs)
        self._where = where
        self._labels = base.labels
        if self._labels is not None and len(self._labels) != len(base):
            raise DataError(
                f"{where}: {len(self._labels)} labels for {len(base)} samples; give one for each"
            )

    def __len__(self) -> int:
        return len(self._base)

    def __getitem__(self, index: int) -> Feed:
        return fit_feed(self._base[index], self._inputs, f"{self._where}: sample {index}")

    @property
    def labels(self) -> Sequence[Array] | None:
        return self._labels

    @property
    def images(self) -> bool:
        """Whether they are read from a folder of images."""
        return isinstance(self._base, ImageFolder)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The arrays that no input of the model takes, as seen in the first sample."""
        names = self._base.names if isinstance(self._base, Stacked) else self._base[0]
        return tuple(unknown_names(names, self._inputs))

    def check(self, count: int) -> None:
        """Read the first `count` samples, up to some bytes, so that faults show early."""
        total = 0
        for index in range(count):
            total += size_of(self[index])
            if total > _CHECKED_AHEAD:
                return


def split(samples: Samples, held_out: float = 0.2, seed: int = 0) -> tuple[Samples, Samples]:
    """Two parts without a common sample, for calibration and for evaluation; seeded.

    The second holds the fraction `held_out`, rounded, and each at least one. Raises DataError
    for a single sample.
    """
    count = len(samples)
    if count < 2:
        raise DataError(
            f"{count} sample cannot be split into calibration and evaluation; "
            "give two or more, or separate ones with --eval"
        )
    held = min(max(round(count * held_out), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return (
        samples.take([int(i) for i in np.sort(order[held:])]),
        samples.take([int(i) for i in np.sort(order[:held])]),
    )
