"""News text for the language model, in windows that do not overlap.

Evaluation is the start of gensim's `lee_background.cor`, calibration what comes later.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from models import corpora
from models.build_smollm2 import read_gguf
from models.catalog import Recipe
from models.packages import Store
from models.samples import save_stacked

Array = NDArray[Any]
EVALUATION_WINDOWS, EVALUATION_LENGTH = 3, 512
CALIBRATION_WINDOWS, CALIBRATION_LENGTH = 16, 128
TEXTS, TEXTS_LENGTH = 96, 256


def tokenizer(reader: GGUFReader) -> Tokenizer:
    """The byte-level BPE whose vocabulary and merges the GGUF file holds; digits stand alone."""
    tokens: list[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    merges: list[str] = reader.fields["tokenizer.ggml.merges"].contents()
    numbers = {token: number for number, token in enumerate(tokens)}
    pairs = [(first, second) for first, second in (merge.split(" ") for merge in merges)]
    made = Tokenizer(models.BPE(vocab=numbers, merges=pairs))
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, split])
    return made


def windows(ids: Array, starts: Sequence[int], length: int) -> Array:
    """Windows [count,length] of the token stream."""
    return np.stack([ids[start : start + length] for start in starts])


def make(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes the windows; the labels of the evaluation are its own tokens."""
    _make(recipe, store, folder, CALIBRATION_WINDOWS, CALIBRATION_LENGTH)


def make_texts(recipe: Recipe, store: Store, folder: Path) -> None:
    """The same with as many tokens to calibrate with as low rank needs."""
    _make(recipe, store, folder, TEXTS, TEXTS_LENGTH)


def _make(recipe: Recipe, store: Store, folder: Path, count: int, length: int) -> None:
    text = corpora.background_text(store.open(recipe.data[0]))
    ids = np.array(tokenizer(read_gguf(recipe, store)).encode(text).ids, np.int64)
    end = EVALUATION_WINDOWS * EVALUATION_LENGTH
    step = (len(ids) - end) // count
    calibration = windows(ids, [end + number * step for number in range(count)], length)
    evaluation = windows(ids, range(0, end, EVALUATION_LENGTH), EVALUATION_LENGTH)
    save_stacked(folder / recipe.calib, input_ids=calibration)
    save_stacked(folder / recipe.eval, input_ids=evaluation, labels=evaluation)
