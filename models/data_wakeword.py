"""Spoken clips for the speech embedding: wake words, what sounds alike, and other phrases.

A clip is 2.48 s at 16 kHz with noise: 248 frames of 10 ms of the package's own mel spectrogram,
cut as openWakeWord does into windows of 76 frames, 8 frames apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.catalog import Recipe
from models.packages import Store
from models.samples import save_folder
from models.speech import RATE, Speaker, Voice
from models.wakeword import WORDS

Array = NDArray[Any]
MEL = "package/models/melspectrogram.onnx"
WINDOW, STEP, BANDS = 76, 8, 32
LENGTH = round(2.5 * RATE)
SPOKEN_LOUDNESS = 4000.0  # root of the mean square, of 32767
SNR_DB = (15.0, 35.0)
LANGUAGES = ("en", "en-us", "en-us-nyc", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-029")
TEXTS = {"alexa": "alexa", "hey_jarvis": "hey jarvis"}


@dataclass(frozen=True)
class Part:
    """What one of the two sets is made of; voices and phrases of both differ."""

    variants: tuple[str, ...]
    each: int  # clips of every wake word
    others: tuple[str, ...]  # negatives, each said `repeats` times
    repeats: int
    seed: int


CALIBRATION = Part(
    ("m2", "m5", "f1", "f4"),
    8,
    (
        *("alexander", "a lesson", "hey jonas", "the harvest"),
        *("open the window", "good morning", "seven eight nine", "play some music"),
        *("where is the station", "thank you very much", "it rains again", "tell me a story"),
        *("the train is late", "call my brother", "a cup of coffee", "turn it down"),
    ),
    2,
    1,
)
EVALUATION = Part(
    ("m1", "m3", "m4", "m6", "m7", "f2", "f3"),
    60,
    (
        *("alaska", "a lecture", "alex said", "election", "hey travis", "hey charles"),
        *("jarring", "hey marvin", "service", "a taxi", "electric", "hey java"),
        *("what time is it", "turn on the light", "how are you", "next tuesday", "close the door"),
        *("i would like some tea", "the weather is fine", "one two three", "read the news"),
        *("set an alarm", "who was that", "let us go home", "it is too loud", "stop the music"),
    ),
    6,
    2,
)


@dataclass(frozen=True)
class Recorder:
    """Says a text with noise; every draw comes from one generator."""

    speaker: Speaker
    variants: tuple[str, ...]
    random: np.random.Generator

    def clip(self, text: str) -> Array:
        """The text, ending 0.3 to 0.8 s before the end, as float32 [LENGTH]."""
        spoken = self.speaker.say(text, self._voice())
        spoken *= SPOKEN_LOUDNESS / np.sqrt(np.mean(spoken**2))
        low, high = (SPOKEN_LOUDNESS / 10 ** (ratio / 20) for ratio in SNR_DB[::-1])
        clip = self.random.normal(0, self.random.uniform(low, high), LENGTH)
        end = LENGTH - int(self.random.uniform(0.3, 0.8) * RATE)
        kept = spoken[-end:]
        clip[end - len(kept) : end] += kept
        return np.clip(np.rint(clip), -32768, 32767).astype(np.float32)

    def _voice(self) -> Voice:
        language = str(self.random.choice(LANGUAGES))
        variant = str(self.random.choice(self.variants))
        speed, pitch = self.random.integers(130, 200), self.random.integers(30, 70)
        return Voice(f"{language}+{variant}", int(speed), int(pitch))


def texts(part: Part) -> Iterator[tuple[str, Array]]:
    """Every text to be said, with 1 for the wake word that it is."""
    for word in WORDS:
        for _ in range(part.each):
            yield TEXTS[word], np.array([word == other for other in WORDS], np.int64)
    for text in part.others * part.repeats:
        yield text, np.zeros(len(WORDS), np.int64)


def windows(mel: Array) -> Array:
    """Frames [time,32] cut into [windows,76,32,1]."""
    starts = range(0, len(mel) - WINDOW + 1, STEP)
    return np.stack([mel[start : start + WINDOW, :, None] for start in starts])


def spectrogram(session: ort.InferenceSession, clip: Array) -> Array:
    """The package's mel spectrogram [time,32], scaled as the embedding was trained on it."""
    (found,) = session.run(None, {session.get_inputs()[0].name: clip[None]})
    return np.asarray(found).reshape(-1, BANDS) / np.float32(10) + np.float32(2)


def samples(
    part: Part, speaker: Speaker, session: ort.InferenceSession, name: str, labelled: bool
) -> Iterator[dict[str, Array]]:
    """The windows of every clip under the model's input name."""
    recorder = Recorder(speaker, part.variants, np.random.default_rng(part.seed))
    for text, label in texts(part):
        feed = {name: windows(spectrogram(session, recorder.clip(text)))}
        yield feed | ({"labels": label} if labelled else {})


def make(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes one file per clip."""
    mel = ort.InferenceSession(store.open(recipe.package).read(MEL), providers=_CPU)
    (speech,) = recipe.data
    name = ort.InferenceSession(str(folder / recipe.model), providers=_CPU).get_inputs()[0].name
    with tempfile.TemporaryDirectory() as unpacked:
        speaker = Speaker(store.open(speech), Path(unpacked))
        save_folder(folder / recipe.calib, samples(CALIBRATION, speaker, mel, name, False))
        save_folder(folder / recipe.eval, samples(EVALUATION, speaker, mel, name, True))


_CPU: Sequence[str] = ["CPUExecutionProvider"]
