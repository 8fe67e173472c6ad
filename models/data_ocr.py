"""Rendered text for the OCR models: lines to read, lines to turn, pages to find text in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models import rendering
from models.catalog import Recipe
from models.packages import Store
from models.rendering import Box, Fonts
from models.samples import save_folder

Array = NDArray[Any]
Sample = dict[str, Array]
LINE_HEIGHT = 48
Counts = tuple[int, int]
LINES: Counts = (200, 64)  # to evaluate, to calibrate
PAGES: Counts = (25, 12)
PAGE_SIZES = ((640, 480), (480, 640), (576, 576))
LINES_PER_PAGE = 14
GAP = 6
CLASSIFIER_WIDTH = 192
EVALUATION_SEED, CALIBRATION_SEED = 0, 1


class Renderer:
    """Draws samples for one of calibration and evaluation: other texts, another seed."""

    def __init__(self, recipe: Recipe, store: Store, evaluation: bool) -> None:
        self.fonts: Fonts = rendering.fonts(recipe, store)
        self.texts = rendering.words(recipe, store, evaluation)
        self.random = np.random.default_rng(EVALUATION_SEED if evaluation else CALIBRATION_SEED)

    def line(self) -> tuple[str, Image.Image]:
        """A phrase and its picture, 48 pixels high."""
        text = rendering.phrase(self.texts, self.random, longest=5)
        font = self.fonts.draw(self.random, int(self.random.integers(24, 49)))
        image = rendering.line(text, font, self.random)
        width = max(round(image.width * LINE_HEIGHT / image.height), LINE_HEIGHT)
        return text, image.resize((width, LINE_HEIGHT), Image.Resampling.BILINEAR)

    def page(self, size: tuple[int, int]) -> tuple[Image.Image, Array]:
        """Lines below each other at random indents, and their boxes."""
        ink, paper = rendering.colours(self.random)
        image, boxes = Image.new("RGB", size, paper), list[Box]()
        draw, top = ImageDraw.Draw(image), int(self.random.integers(GAP, 4 * GAP))
        for _ in range(LINES_PER_PAGE):
            text = rendering.phrase(self.texts, self.random, longest=5)
            font = self.fonts.draw(self.random, int(self.random.integers(10, 37)))
            _, _, right, bottom = rendering.line_box(text, font, 0, top)
            room = size[0] - right - GAP
            if room > GAP and bottom + GAP < size[1]:
                indent = int(self.random.integers(GAP, room))
                draw.text((indent, top), text, ink, font)
                boxes.append(rendering.line_box(text, font, indent, top))
                top = bottom + int(self.random.integers(GAP, 4 * GAP))
        return rendering.worn(image, self.random), np.array(boxes, np.float64).reshape(-1, 4)


def alphabet(model: Path) -> dict[str, int]:
    """The class of each character: 0 is blank, the model's metadata lists 1 and on, then space."""
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    characters = [*metadata["character"].split("\n"), " "]
    return {character: number for number, character in enumerate(characters, 1)}


def line_samples(classes: dict[str, int], renderer: Renderer, count: int) -> Iterator[Sample]:
    """Pictures of lines, labelled with the classes of their characters."""
    for _ in range(count):
        text, image = renderer.line()
        label = np.array([classes[character] for character in text], np.int64)
        yield {"x": rendering.normalized(image), "labels": label}


def page_samples(renderer: Renderer, count: int) -> Iterator[Sample]:
    """Pages, labelled with the boxes of their lines."""
    for number in range(count):
        image, boxes = renderer.page(PAGE_SIZES[number % len(PAGE_SIZES)])
        yield {"x": rendering.normalized(image), "labels": boxes}


def turned_samples(renderer: Renderer, count: int) -> Iterator[Sample]:
    """Lines on a strip 192 wide, every second one upside down; the label says which."""
    for number in range(count):
        _, image = renderer.line()
        strip = Image.new("RGB", (CLASSIFIER_WIDTH, LINE_HEIGHT), (127, 127, 127))
        turned = image.rotate(180) if number % 2 else image
        strip.paste(turned.resize((min(image.width, CLASSIFIER_WIDTH), LINE_HEIGHT)))
        yield {"x": rendering.normalized(strip), "labels": np.array([number % 2])}


Samples = Callable[[Renderer, int], Iterator[Sample]]


def write(recipe: Recipe, store: Store, folder: Path, samples: Samples, counts: Counts) -> None:
    """Saves what `samples` draws: labelled to evaluate, unlabelled to calibrate."""
    evaluated, calibrated = counts
    drawn = samples(Renderer(recipe, store, evaluation=True), evaluated)
    save_folder(folder / recipe.eval, drawn)
    others = samples(Renderer(recipe, store, evaluation=False), calibrated)
    save_folder(folder / recipe.calib, ({"x": sample["x"]} for sample in others))


def make_lines(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes lines for the recognizer."""
    classes = alphabet(folder / recipe.model)
    write(recipe, store, folder, partial(line_samples, classes), LINES)


def make_pages(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes pages for the detector."""
    write(recipe, store, folder, page_samples, PAGES)


def make_turned(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes lines for the orientation classifier."""
    write(recipe, store, folder, turned_samples, LINES)
