"""Synthesised polyphony for the note detector: decaying harmonic tones with known times.

Labels are the notes that sound in each frame of 256 samples: [172,88] from A0, one row per frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.catalog import Recipe
from models.packages import Store
from models.samples import save_stacked

Array = NDArray[Any]
INPUT = "serving_default_input_2:0"
RATE, LENGTH = 22_050, 43_844
HOP, FRAMES = 256, 172
KEYS, LOWEST_HZ = 88, 27.5
PLAYED = (15, 76)  # C2 to C7: where a tone has both its harmonics and its period inside
NOTES = (5, 12)  # per window of 2 s
SECONDS = (0.25, 1.0)
PEAK = 0.5


@dataclass(frozen=True)
class Part:
    """One set of windows; instruments of both sets differ in how their harmonics fall off."""

    count: int
    seed: int
    falloff: tuple[float, float]


CALIBRATION = Part(24, 1, (1.4, 2.0))
EVALUATION = Part(48, 2, (0.8, 1.4))


def tone(key: int, count: int, falloff: float, random: np.random.Generator) -> Array:
    """`count` samples of a key: harmonics k of weight k**-falloff that decay, faster the higher."""
    pitch = LOWEST_HZ * 2 ** (key / 12)
    harmonics = np.arange(1, min(12, int(RATE / 2 / pitch)) + 1)[:, None]
    seconds = np.arange(count) / RATE
    phases = random.uniform(0, 2 * np.pi, harmonics.shape)
    waves = np.sin(2 * np.pi * pitch * harmonics * seconds + phases)
    decays = np.exp(-seconds * (1 + 0.5 * harmonics))
    edge = np.minimum(1, np.minimum(seconds, seconds[::-1]) / 0.005)
    return np.asarray((harmonics**-falloff * decays * waves).sum(axis=0) * edge)


def window(part: Part, random: np.random.Generator) -> tuple[Array, Array]:
    """The samples [LENGTH,1] float32 and the label [172,88] of one window."""
    samples = random.normal(0, 1e-3, LENGTH)
    label = np.zeros((FRAMES, KEYS), np.uint8)
    falloff = random.uniform(*part.falloff)
    for _ in range(random.integers(*NOTES)):
        key, count = int(random.integers(*PLAYED)), int(random.uniform(*SECONDS) * RATE)
        start = int(random.integers(0, LENGTH - count))
        samples[start : start + count] += random.uniform(0.3, 1) * tone(key, count, falloff, random)
        label[-(-start // HOP) : (start + count) // HOP, key] = 1
    samples *= PEAK / np.abs(samples).max()
    return samples.astype(np.float32)[:, None], label


def windows(part: Part) -> tuple[Array, Array]:
    """All windows [count,LENGTH,1] and labels of a set."""
    random = np.random.default_rng(part.seed)
    made = [window(part, random) for _ in range(part.count)]
    return np.stack([samples for samples, _ in made]), np.stack([label for _, label in made])


def make(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes the windows of both sets."""
    samples, _ = windows(CALIBRATION)
    save_stacked(folder / recipe.calib, **{INPUT: samples})
    samples, labels = windows(EVALUATION)
    save_stacked(folder / recipe.eval, **{INPUT: samples, "labels": labels})
