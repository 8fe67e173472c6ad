"""Folders of images as samples: read, resized, cropped and scaled as the model was trained.

Pillow is imported when the first image is read; it comes with the extra `images`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from onnxslim.errors import DataError
from onnxslim.runtime.samples import Array, Feed, Samples
from onnxslim.runtime.types import TensorInfo

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
Color = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class Preprocess:
    """From an image to a model's input: x = (pixel * scale - mean) / std, per channel.

    As text: `size=256 crop=224 mean=0.485,0.456,0.406 std=0.229,0.224,0.225 scale=1/255`.
    """

    size: tuple[int, ...] = ()  # one number: of the short side; two: height, width
    crop: tuple[int, ...] = ()  # from the centre: a square, or height, width
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255
    layout: Layout = "nchw"
    color: Color = "rgb"

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Read the text form; DataError names the key or value that is wrong."""
        given: dict[str, Any] = {}
        for part in text.split():
            key, equals, value = part.partition("=")
            if key not in _READERS or not equals or key in given:
                problem = "given twice" if key in given else "expected key=value with a key of "
                keys = "" if key in given else ", ".join(_READERS)
                raise DataError(f"--preprocess: '{part}': {problem}{keys}")
            try:
                given[key] = _READERS[key](value)
            except (ValueError, ZeroDivisionError) as error:
                raise DataError(f"--preprocess: '{part}': {error}") from error
        return cls(**given)

    def __call__(self, path: Path) -> Array:
        """One image as float32, [1, C, H, W] or [1, H, W, C]. Raises DataError."""
        pixels = self._pixels(path) * np.float32(self.scale)
        if max(len(self.mean), len(self.std)) > pixels.shape[-1]:
            raise DataError(
                f"--preprocess: {max(len(self.mean), len(self.std))} values of mean or std for "
                f"{pixels.shape[-1]} channel(s)"
            )
        scaled = np.divide(pixels - _float32(self.mean), _float32(self.std))
        axes = (2, 0, 1) if self.layout == "nchw" else (0, 1, 2)
        return np.expand_dims(np.transpose(scaled, axes), 0)

    def _pixels(self, path: Path) -> Array:
        """Float32 [H, W, C] in 0..255, resized and cropped."""
        image_module = _pillow()
        try:
            with image_module.open(path) as file:
                image = file.convert("L" if self.color == "gray" else "RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path}: not a readable image: {error}") from error
        if self.size:
            height, width = _target(self.size, image.height, image.width)
            image = image.resize((width, height), image_module.Resampling.BILINEAR)
        if self.crop:
            image = image.crop(_centre(self.crop, image.height, image.width, path))
        pixels = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1)
        return pixels[..., ::-1] if self.color == "bgr" else pixels


def _float32(values: Sequence[float]) -> Array:
    return np.asarray(values, np.float32)


def _target(size: Sequence[int], height: int, width: int) -> tuple[int, int]:
    if len(size) == 2:
        return size[0], size[1]
    short = min(height, width)
    return max(1, round(height * size[0] / short)), max(1, round(width * size[0] / short))


def _centre(crop: Sequence[int], height: int, width: int, path: Path) -> tuple[int, int, int, int]:
    rows, columns = crop[0], crop[-1]
    if rows > height or columns > width:
        raise DataError(
            f"{path}: {height}x{width} pixels are fewer than crop={rows},{columns}; "
            "give a size that is at least as large"
        )
    left, top = (width - columns) // 2, (height - rows) // 2
    return left, top, left + columns, top + rows


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "reading images needs Pillow: pip install 'onnxslim-compiler[images]'"
        ) from error
    return Image


def _sizes(text: str) -> tuple[int, ...]:
    values = tuple(int(v) for v in re.split("[,x]", text))
    if len(values) > 2 or min(values) < 1:
        raise ValueError("expected one or two positive whole numbers")
    return values


def _number(text: str) -> float:
    return float(Fraction(text)) if "/" in text else float(text)


def _numbers(text: str) -> tuple[float, ...]:
    values = tuple(_number(v) for v in text.split(","))
    if len(values) not in (1, 3):
        raise ValueError("expected one number, or one for each of three channels")
    return values


def _divisors(text: str) -> tuple[float, ...]:
    if 0.0 in (values := _numbers(text)):
        raise ValueError("expected numbers other than 0")
    return values


def _one_of(values: Iterable[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"expected one of {', '.join(values)}")
        return text

    return read


_READERS: MappingProxyType[str, Callable[[str], Any]] = MappingProxyType(
    {
        "size": _sizes,
        "crop": _sizes,
        "mean": _numbers,
        "std": _divisors,
        "scale": _number,
        "layout": _one_of(("nchw", "nhwc")),
        "color": _one_of(("rgb", "bgr", "gray")),
    }
)


class ImageFolder(Samples):
    """The images of a folder in the order of their names, in batches of the model's size.

    With sub-folders, each is a class: its place among their sorted names is the label.
    Raises DataError when the model has more than one input.
    """

    def __init__(
        self, folder: Path, files: Sequence[Path], inputs: Sequence[TensorInfo], how: Preprocess
    ) -> None:
        needed = [i for i in inputs if not i.optional]
        if len(needed) != 1:
            raise DataError(
                f"{folder}: a folder of images feeds a model with one input, this one has "
                f"{[i.name for i in needed]}; give .npz files or module:function"
            )
        self._input = needed[0]
        self._how = how
        batch = self._input.shape[0] if self._input.shape else None
        self._size = batch if isinstance(batch, int) and batch > 0 else 1
        if len(files) < self._size:
            raise DataError(
                f"{folder}: {len(files)} images; the model takes batches of {self._size}"
            )
        self._files = list(files)
        self._labels = _classes(folder, files)

    def __len__(self) -> int:
        return len(self._files) // self._size

    def __getitem__(self, index: int) -> Feed:
        files = self._files[index * self._size : (index + 1) * self._size]
        images = [self._how(path) for path in files]
        if len({image.shape for image in images}) > 1:
            raise DataError(f"{files[0]}: images of one batch differ in size; give size or crop")
        batch = np.concatenate(images)
        dtype = self._input.dtype
        if dtype is not None and dtype.kind in "iu":
            batch = np.rint(batch).astype(np.int64)
        return {self._input.name: batch}

    @property
    def labels(self) -> Sequence[Array] | None:
        if self._labels is None:
            return None
        rows = np.array(self._labels)
        if self._size == 1:
            return list(rows)
        return [rows[i * self._size : (i + 1) * self._size] for i in range(len(self))]


def find_images(folder: Path) -> list[Path]:
    """The images of a folder, or, where it has none itself, of its sub-folders; sorted."""
    direct = _images_in(folder)
    if direct:
        return direct
    return [path for sub in sorted(folder.iterdir()) if sub.is_dir() for path in _images_in(sub)]


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _classes(folder: Path, files: Sequence[Path]) -> list[int] | None:
    """The class of each file by its sub-folder, numbered in the order of their sorted names."""
    parents = [path.parent for path in files]
    if all(parent == folder for parent in parents):
        return None
    subs = sorted(p for p in folder.iterdir() if p.is_dir())
    if all(sub.name.isdecimal() for sub in subs):
        return [int(parent.name) for parent in parents]
    return [subs.index(parent) for parent in parents]
