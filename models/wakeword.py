"""How well openWakeWord's own heads tell wake words from the embeddings of a model.

The heads are files of the package that the embedding comes from, read from the default cache.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.catalog import recipe
from models.metrics import Labels, Outputs, area_under_curve, only_output
from models.packages import Store
from models.zoo import default_cache

Array = NDArray[Any]
WORDS = ("alexa", "hey_jarvis")
HEAD = "package/models/{}_v0.1.onnx"
WINDOWS, WIDTH = 16, 96  # what a head reads


@cache
def head(word: str) -> ort.InferenceSession:
    """The detector of one wake word."""
    package = recipe("openwakeword").package
    content = Store(default_cache() / "packages").open(package).read(HEAD.format(word))
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"])


def clip_score(embeddings: Array, word: str) -> float:
    """The highest score of a clip, at any of its 16 windows in a row; embeddings [n,1,1,96]."""
    session, rows = head(word), embeddings.reshape(-1, WIDTH)
    name = session.get_inputs()[0].name
    starts = range(len(rows) - WINDOWS + 1)
    found = [session.run(None, {name: rows[None, i : i + WINDOWS]})[0] for i in starts]
    return float(np.max(found))


def word_auc(outputs: Outputs, labels: Labels, place: int) -> float:
    """The area under the curve of one word against all other clips."""
    scores = [clip_score(only_output(output), WORDS[place]) for output in outputs]
    return area_under_curve(np.array(scores), np.array([label[place] for label in labels], bool))


def alexa_auc(outputs: Outputs, labels: Labels) -> float:
    """Of the head for "alexa"."""
    return word_auc(outputs, labels, 0)


def jarvis_auc(outputs: Outputs, labels: Labels) -> float:
    """Of the head for "hey jarvis"."""
    return word_auc(outputs, labels, 1)


def wakeword_auc(outputs: Outputs, labels: Labels) -> float:
    """The mean of both heads; a label holds one 0 or 1 per head."""
    return (alexa_auc(outputs, labels) + jarvis_auc(outputs, labels)) / 2
