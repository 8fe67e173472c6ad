"""Text rendered with Debian's fonts, for the OCR models; every draw comes from one generator."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from models import corpora
from models.catalog import Recipe
from models.packages import Store

Array = NDArray[Any]
Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]
NOISE = 6.0
BLUR = 0.6


@dataclass(frozen=True)
class Fonts:
    """The content of font files; `draw` gives one of them at a size in pixels."""

    files: tuple[bytes, ...]

    def draw(self, random: np.random.Generator, size: int) -> ImageFont.FreeTypeFont:
        content = self.files[int(random.integers(len(self.files)))]
        basic = ImageFont.Layout.BASIC
        return ImageFont.truetype(io.BytesIO(content), size, layout_engine=basic)


def fonts(recipe: Recipe, store: Store) -> Fonts:
    """All TrueType fonts of the recipe's Debian packages, in order of their names."""
    files: list[bytes] = []
    for package in recipe.data:
        if package.kind == "debian":
            archive = store.open(package)
            members = sorted(name for name in archive.names() if name.endswith(".ttf"))
            files += map(archive.read, members)
    return Fonts(tuple(files))


def words(recipe: Recipe, store: Store, evaluation: bool) -> list[list[str]]:
    """Words of each news text: Lee's 50 summaries to evaluate, other articles to calibrate."""
    archive = next(store.open(package) for package in recipe.data if package.key == "gensim")
    texts = corpora.documents(archive) if evaluation else corpora.background(archive)
    ascii_only = (text.encode("ascii", "ignore").decode() for text in texts)
    return [text.split() for text in ascii_only]


def phrase(texts: Sequence[list[str]], random: np.random.Generator, longest: int) -> str:
    """Up to `longest` words that follow each other."""
    text = texts[int(random.integers(len(texts)))]
    count = int(random.integers(1, longest + 1))
    start = int(random.integers(max(len(text) - count, 1)))
    return " ".join(text[start : start + count])


def colours(random: np.random.Generator) -> tuple[Colour, Colour]:
    """Ink and paper: one dark, one light, either way round."""
    dark, light = random.integers(0, 90, 3), random.integers(170, 256, 3)
    pair = (dark, light) if random.random() < 0.8 else (light, dark)
    ink, paper = (tuple(int(value) for value in colour) for colour in pair)
    return (ink[0], ink[1], ink[2]), (paper[0], paper[1], paper[2])


def ink_box(text: str, font: ImageFont.FreeTypeFont, left: int, top: int) -> Box:
    """Where `text` leaves ink when it is drawn at (left, top)."""
    box = font.getbbox(text)
    return (int(box[0]) + left, int(box[1]) + top, int(box[2]) + left, int(box[3]) + top)


def line_box(text: str, font: ImageFont.FreeTypeFont, left: int, top: int) -> Box:
    """The same, but as high as the font's ascenders and descenders, whatever the letters."""
    box, (ascent, descent) = ink_box(text, font, left, top), font.getmetrics()
    return (box[0], top, box[2], top + ascent + descent)


def worn(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A little blur and noise, as from a scanner."""
    blurred = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0, BLUR))))
    pixels = np.asarray(blurred, np.float32)
    noisy = pixels + random.normal(0, random.uniform(0, NOISE), pixels.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def line(text: str, font: ImageFont.FreeTypeFont, random: np.random.Generator) -> Image.Image:
    """One line of text with a narrow margin."""
    ink, paper = colours(random)
    left, top, right, bottom = ink_box(text, font, 0, 0)
    margin = [int(value) for value in random.integers(1, 5, 4)]
    size = (right - left + margin[0] + margin[2], bottom - top + margin[1] + margin[3])
    image = Image.new("RGB", size, paper)
    ImageDraw.Draw(image).text((margin[0] - left, margin[1] - top), text, ink, font)
    return worn(image, random)


def normalized(image: Image.Image) -> Array:
    """The image as [1,3,H,W] between -1 and 1."""
    pixels = np.asarray(image, np.float32) / 127.5 - 1
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def batches(images: Iterable[Image.Image]) -> list[dict[str, Array]]:
    """Each image as the only input, `x`."""
    return [{"x": normalized(image)} for image in images]
