"""ImageNet views for EfficientNet-Lite0: 18 crops and flips of each photo."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.catalog import Recipe
from models.packages import Archive, Store
from models.samples import save_stacked

Array = NDArray[Any]
SHORT_SIDE = 256
SIDE = 224
LABELLED = re.compile(r"foolbox/data/imagenet_\d+_(\d+)\.jpg")
# photos of scenes, people, animals and things; microscopy, textures and drawings left out
CALIBRATION_PHOTOS = {
    "scikit-image": (
        "skimage/data/astronaut.png",
        "skimage/data/chelsea.png",
        "skimage/data/coffee.png",
        "skimage/data/rocket.jpg",
        "skimage/data/camera.png",
        "skimage/data/motorcycle_left.png",
    ),
    "scikit-learn": ("sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"),
}
CALIBRATION_VIEWS = 8


def shrink(content: bytes) -> Image.Image:
    """The photo in RGB with a short side of 256."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    width, height = (round(scale * side) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def views(image: Image.Image) -> Iterator[Array]:
    """18 views [3,224,224]: a 3x3 grid of crops, the central one first, each also mirrored."""
    pixels = (np.asarray(image, np.float32) - 127) / 128
    height, width, _ = pixels.shape
    for down, across, mirrored in product((0.5, 0, 1), (0.5, 0, 1), (False, True)):
        top, left = round(down * (height - SIDE)), round(across * (width - SIDE))
        crop = pixels[top : top + SIDE, left : left + SIDE]
        yield np.ascontiguousarray((crop[:, ::-1] if mirrored else crop).transpose(2, 0, 1))


def labelled_views(archive: Archive) -> tuple[Array, Array]:
    """All views of foolbox's photos, and the class that each file name states."""
    inputs, labels = [], []
    for member in sorted(archive.names()):
        match = LABELLED.fullmatch(member)
        if match:
            photo = list(views(shrink(archive.read(member))))
            inputs += photo
            labels += [int(match[1])] * len(photo)
    return np.stack(inputs), np.array(labels, np.int64)


def calibration_views(recipe: Recipe, store: Store) -> Array:
    """Views of other photos, spread over the grid."""
    chosen = []
    for package in recipe.data:
        archive = store.open(package)
        for member in CALIBRATION_PHOTOS.get(package.key, ()):
            every = list(views(shrink(archive.read(member))))
            picks = np.linspace(0, len(every) - 1, CALIBRATION_VIEWS).round().astype(int)
            chosen += [every[pick] for pick in picks]
    return np.stack(chosen)


def make(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes the calibration and evaluation views."""
    save_stacked(folder / recipe.calib, input=calibration_views(recipe, store))
    inputs, labels = labelled_views(store.open(recipe.data[0]))
    save_stacked(folder / recipe.eval, input=inputs, labels=labels)
