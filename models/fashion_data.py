"""Fashion-MNIST as normalised arrays; needs NumPy alone.

The files are those of the Debian package ``dataset-fashion-mnist`` (MIT licence).
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DEFAULT_DIR", "MEAN", "STD", "load_pixels", "load_split", "normalise", "read_idx"]

DEFAULT_DIR = Path("/usr/share/datasets/fashion-mnist")
MEAN = 0.2860
STD = 0.3530
FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The uint8 array of one gzipped IDX file.

    Raises:
        FileNotFoundError: no such file; says which package holds it.
        ValueError: not an IDX file of unsigned bytes, or cut short.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found: install the Debian package dataset-fashion-mnist "
            "or give the folder that holds its .gz files"
        )
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} starts with {raw[:3]!r}, expected an IDX file of unsigned bytes")
    rank = raw[3]
    shape = tuple(int(size) for size in np.frombuffer(raw, dtype=">u4", count=rank, offset=4))
    body = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank)
    if body.size != math.prod(shape):
        raise ValueError(f"{path} holds {body.size} bytes of data, its header says {shape}")
    return body.reshape(shape)


def normalise(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(pixel / 255 - MEAN) / STD in float32, with a channel axis: [n,28,28] -> [n,1,28,28]."""
    scaled = (pixels.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return scaled.astype(np.float32)[:, np.newaxis]


def load_pixels(
    split: str, data_dir: str | Path = DEFAULT_DIR
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pixels uint8 [n,28,28] and labels int64 [n] of the split "train" or "test"."""
    if split not in FILES:
        raise ValueError(f"unknown split {split!r}, expected one of {sorted(FILES)}")
    stem = FILES[split]
    pixels = read_idx(Path(data_dir) / f"{stem}-images-idx3-ubyte.gz")
    labels = read_idx(Path(data_dir) / f"{stem}-labels-idx1-ubyte.gz")
    return pixels, labels.astype(np.int64)


def load_split(
    split: str, data_dir: str | Path = DEFAULT_DIR
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Normalised images float32 [n,1,28,28] and labels int64 [n] of "train" or "test"."""
    pixels, labels = load_pixels(split, data_dir)
    return normalise(pixels), labels
