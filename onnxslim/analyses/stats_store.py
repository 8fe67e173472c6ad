"""Where collected statistics are kept: in memory, or one file each in a folder.

Files are named by a hash of all that determines the content, so that a folder serves many
models, data sets and requests at once, and an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np

from onnxslim.analyses.arrays_file import read, write
from onnxslim.analyses.builder import MomentsBuilder
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.histogram import Histogram
from onnxslim.analyses.moments import Moments
from onnxslim.analyses.tensor_stats import ChannelStats, TensorStats
from onnxslim.runtime.samples import Samples

_FORMAT = "layer statistics 1"


class MomentStore(Mapping[Tap, Moments]):
    """Moments by tap; those in a folder, or spilled, are read at each access and not held."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder = folder
        self._key = key
        self._held: dict[Tap, MomentsBuilder | None] = {}

    def put(self, tap: Tap, made: MomentsBuilder) -> None:
        """Keep the moments of a tap, of all rows that there are."""
        if self._folder is None:
            self._held[tap] = made
        else:
            moments = made.result()
            content = {"n": moments.n, "mean": moments.mean, "scatter": moments.scatter}
            write(self._path(tap), {k: np.asarray(v) for k, v in content.items()})
            self._held[tap] = None

    def find(self, tap: Tap) -> bool:
        """Whether the moments of a tap are there, perhaps from an earlier run."""
        if tap not in self._held and self._folder is not None and read(self._path(tap)) is not None:
            self._held[tap] = None
        return tap in self._held

    def __getitem__(self, tap: Tap) -> Moments:
        held = self._held[tap]
        if held is not None:
            return held.result()
        content = read(self._path(tap))
        if content is None:
            raise OSError(f"{self._path(tap)} was removed while the program ran")
        return Moments(int(content["n"]), content["mean"], content["scatter"])

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def _path(self, tap: Tap) -> Path:
        assert self._folder is not None
        return file_of(self._folder, self._key, repr(tap))


def write_tensor(path: Path, stats: TensorStats) -> None:
    """Keep the statistics of a tensor in a file."""
    flat = {f.name: getattr(stats, f.name) for f in fields(stats)}
    del flat["histogram"], flat["channels"]
    flat |= {f"h_{f.name}": getattr(stats.histogram, f.name) for f in fields(Histogram)}
    if stats.channels is not None:
        flat |= {f"c_{f.name}": getattr(stats.channels, f.name) for f in fields(ChannelStats)}
    write(path, {name: np.asarray(value) for name, value in flat.items()})


def read_tensor(path: Path) -> TensorStats | None:
    """The statistics of a tensor from a file; None when there are none."""
    content = read(path)
    if content is None:
        return None
    channels = None
    if "c_count" in content:
        arrays = (content[f"c_{name}"] for name in ("min", "max", "mean"))
        channels = ChannelStats(int(content["c_count"]), *arrays)
    return TensorStats(
        int(content["count"]),
        float(content["min"]),
        float(content["max"]),
        float(content["mean"]),
        int(content["channel_axis"]),
        channels,
        Histogram(int(content["h_exponent"]), int(content["h_first"]), content["h_counts"]),
    )


def request_key(model_checksum: str, samples: Samples, sampling: str) -> str:
    """A hash of all that statistics depend on but the tensor itself. Reads all samples."""
    digest = hashlib.sha256(f"{_FORMAT} {model_checksum} {sampling}".encode())
    for feed in samples:
        for name in sorted(feed):
            array = np.ascontiguousarray(feed[name])
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes() if array.dtype == object else array.data)
    return digest.hexdigest()


def file_of(folder: Path, key: str, item: str) -> Path:
    """The file of one item of a request."""
    return folder / f"stats-{hashlib.sha256(f'{key} {item}'.encode()).hexdigest()[:40]}.npz"
