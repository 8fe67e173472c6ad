"""Texts for the sentence encoder: one text a sample, at its own length.

Evaluation is every text of three rated sets; a label says which people compared it with (see
`models.metrics`). Calibration is news articles and single words that no rated set holds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models import corpora, metrics
from models.build_minilm import inner_archive
from models.catalog import Recipe
from models.packages import Archive, Store
from models.samples import save_folder

Array = NDArray[Any]
RatedPair = tuple[str, str, float]
WORD_SETS = {metrics.WORDSIM353: "wordsim353.tsv", metrics.SIMLEX999: "simlex999.txt"}
ARTICLES, WORDS = 32, 32
MORE_ARTICLES, MORE_WORDS = 300, 512
SEED = 0
LONGEST = 256


def tokenizer(recipe: Recipe, store: Store) -> Tokenizer:
    """The model's own tokenizer, without padding, cut at its `max_seq_length`."""
    content = inner_archive(recipe, store).read("tokenizer.json")
    made = Tokenizer.from_str(content.decode())
    made.no_padding()
    made.enable_truncation(max_length=LONGEST)
    return made


def encode(tokens: Tokenizer, text: str) -> dict[str, Array]:
    """The model's three inputs [1,S]."""
    encoding = tokens.encode(text)
    columns = (encoding.ids, encoding.attention_mask, encoding.type_ids)
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: np.array([c], np.int64) for name, c in zip(names, columns, strict=True)}


def document_pairs(archive: Archive) -> Iterator[RatedPair]:
    """Lee's 1225 pairs of documents."""
    texts, ratings = corpora.documents(archive), corpora.document_ratings(archive)
    for row, first in enumerate(texts):
        for column in range(row + 1, len(texts)):
            yield first, texts[column], ratings[row][column]


def rated_pairs(archive: Archive) -> dict[int, list[RatedPair]]:
    """The pairs of every set, by the set's number."""
    pairs = {number: corpora.word_pairs(archive, file) for number, file in WORD_SETS.items()}
    return pairs | {metrics.LEE: list(document_pairs(archive))}


def labelled_texts(pairs: Sequence[RatedPair]) -> Iterator[tuple[str, list[float]]]:
    """Each text once, with [text, partner, rating, ...]; a pair stands at its first text."""
    numbers: dict[str, int] = {}
    partners: defaultdict[int, list[float]] = defaultdict(list)
    for first, second, rating in pairs:
        one, other = (numbers.setdefault(text, len(numbers)) for text in (first, second))
        partners[one] += [other, rating]
    for text, number in numbers.items():
        yield text, [number, *partners[number]]


def evaluation(tokens: Tokenizer, archive: Archive) -> Iterator[dict[str, Array]]:
    """Every text of every set, labelled."""
    for number, pairs in rated_pairs(archive).items():
        for text, (position, *rated) in labelled_texts(pairs):
            feeds = encode(tokens, text)
            length = feeds["input_ids"].shape[1]
            label = np.array([number, position, length, *rated], np.float64)
            yield feeds | {"labels": label}


def calibration_texts(archive: Archive, count: int, single: int) -> list[str]:
    """So many articles, then single words of all articles that no rated pair contains."""
    articles = corpora.background(archive)
    pairs = [pair for file in WORD_SETS.values() for pair in corpora.word_pairs(archive, file)]
    rated = {word.lower() for first, second, _ in pairs for word in (first, second)}
    found = set(re.findall(r"\b[a-z]{3,}\b", " ".join(articles)))
    random = np.random.default_rng(SEED)
    words = random.choice(sorted(found - rated), single, replace=False)
    return [*pick(articles, count), *words.tolist()]


def pick(items: Sequence[str], count: int) -> Iterable[str]:
    """`count` items evenly spaced."""
    return (items[number * len(items) // count] for number in range(count))


def make(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes calibration and evaluation texts."""
    _write(recipe, store, folder, ARTICLES, WORDS)


def make_texts(recipe: Recipe, store: Store, folder: Path) -> None:
    """The same with more to calibrate with: a table of words is cut by which of them are read."""
    _write(recipe, store, folder, MORE_ARTICLES, MORE_WORDS)


def _write(recipe: Recipe, store: Store, folder: Path, articles: int, words: int) -> None:
    tokens, archive = tokenizer(recipe, store), store.open(recipe.data[0])
    texts = calibration_texts(archive, articles, words)
    save_folder(folder / recipe.calib, (encode(tokens, text) for text in texts))
    save_folder(folder / recipe.eval, evaluation(tokens, archive))
