"""ImageNet-like views of some 260 photos for EfficientNet-Lite0: two of each photo of an album."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from models.catalog import ModelError, Recipe
from models.data_images import Array, labelled_views, shrink, views
from models.packages import Store
from models.samples import save_stacked

FOLDER = "usr/share/gcompris-qt/rcc"
ALBUMS = (
    "categorization",  # tools, fish, toys, household things, monuments, mills
    "erase",  # animals, paintings, monuments
    "details",
    "explore_farm_animals",
    "explore_world_animals",
    "explore_monuments",
    "explore_world_music",
)
SMALLEST = 200  # pixels of the short side; smaller pictures are symbols
OTHERS = 15  # views besides the central crop and its mirror image


def pictures(resource: bytes) -> Iterator[bytes]:
    """The WebP files of a Qt resource file, which holds them one after the other as they are."""
    at = resource.find(b"RIFF")
    while at >= 0:
        length = 8 + int.from_bytes(resource[at + 4 : at + 8], "little")
        if resource[at + 8 : at + 12] == b"WEBP":
            yield resource[at : at + length]
        at = resource.find(b"RIFF", at + 4)


def photo_views(albums: Iterator[bytes]) -> Array:
    """The central crop of every photo, and one of the other views in turn."""
    chosen: list[Array] = []
    for album in albums:
        for content in pictures(album):
            if min(Image.open(io.BytesIO(content)).size) >= SMALLEST:
                every = list(views(shrink(content)))
                chosen += [every[0], every[3 + (7 * len(chosen)) % OTHERS]]
    return np.stack(chosen)


def make(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes the calibration views of these photos, and the evaluation views of foolbox's."""
    photos, package = recipe.data
    archive = store.open(package)
    names = set(archive.names())
    missing = [name for name in ALBUMS if f"{FOLDER}/{name}.rcc" not in names]
    if missing:
        raise ModelError(f"{package.file} has no {', '.join(missing)}")
    albums = (archive.read(f"{FOLDER}/{name}.rcc") for name in ALBUMS)
    save_stacked(folder / recipe.calib, input=photo_views(albums))
    inputs, labels = labelled_views(store.open(photos))
    save_stacked(folder / recipe.eval, input=inputs, labels=labels)
