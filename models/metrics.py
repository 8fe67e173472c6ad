"""Metrics of the outside models; for every metric named in the manifest higher is better.

Each is called as `metric(outputs, labels)`: one dict of output name -> array (batch axis kept)
and one label array per sample. A metric reads the model's only output, whatever its name, unless
it says another. What a label holds is said at each metric; everything a metric needs is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.detection import find_boxes, match_boxes

Array = NDArray[Any]
Outputs = Sequence[dict[str, Array]]
Labels = Sequence[Array]


def only_output(output: dict[str, Array]) -> Array:
    """The array of a model with one output; raises ValueError on any other model."""
    if len(output) != 1:
        raise ValueError(f"expected a model with one output, got {sorted(output)}")
    return next(iter(output.values()))


# Classification: a label is the index of the right class.


def _classes(outputs: Outputs) -> list[int]:
    return [int(only_output(output).argmax(axis=-1).item()) for output in outputs]


def top1(outputs: Outputs, labels: Labels) -> float:
    """The share of samples whose highest score is that of the labelled class."""
    right = [found == int(label.item()) for found, label in _zip(_classes(outputs), labels)]
    return float(np.mean(right))


# Detection by a score: a label says what is there.


def area_under_curve(scores: Array, positive: Array) -> float:
    """The chance that a positive scores above a negative, ties counting half (Mann-Whitney U).

    `scores` and `positive` (bool) of one shape; raises ValueError where either kind is missing.
    """
    ranks = stats.rankdata(scores.ravel())
    chosen = positive.ravel().astype(bool)
    hits, misses = int(chosen.sum()), int((~chosen).sum())
    if not hits or not misses:
        raise ValueError(f"expected positives and negatives, got {hits} and {misses}")
    return float((ranks[chosen].sum() - hits * (hits + 1) / 2) / (hits * misses))


# Notes: basic_pitch has three outputs; a label holds 0 or 1 for each frame and key [172,88].

NOTES = "StatefulPartitionedCall:1"  # as basic_pitch's own inference.py names it


def frame_auc(outputs: Outputs, labels: Labels) -> float:
    """The area under the curve of note scores over all frames and keys of all samples."""
    pairs = [(output[NOTES][0], label) for output, label in _zip(outputs, labels)]
    return area_under_curve(*(np.stack(part) for part in zip(*pairs, strict=True)))


# Text recognition: scores [1,T,classes], class 0 is CTC's blank; a label is the text as class
# numbers.


def greedy_decode(scores: Array) -> list[int]:
    """The best class of each step, repeats joined, blanks left out (Graves et al., 2006)."""
    best = scores.reshape(-1, scores.shape[-1]).argmax(axis=-1).tolist()
    return [number for number, _ in groupby(best) if number != 0]


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Levenshtein's distance; time is the product of the lengths."""
    row = list(range(len(second) + 1))
    for count, left in enumerate(first, 1):
        diagonal, row[0] = row[0], count
        for column, right in enumerate(second, 1):
            step = min(row[column] + 1, row[column - 1] + 1, diagonal + (left != right))
            diagonal, row[column] = row[column], step
    return row[-1]


def _texts(outputs: Outputs, labels: Labels) -> Iterator[tuple[list[int], list[int]]]:
    for output, label in _zip(outputs, labels):
        yield greedy_decode(only_output(output)), label.ravel().tolist()


def exact_lines(outputs: Outputs, labels: Labels) -> float:
    """The share of lines read without any mistake."""
    return float(np.mean([found == truth for found, truth in _texts(outputs, labels)]))


def character_error_rate(outputs: Outputs, labels: Labels) -> float:
    """Edits per character of the true texts: lower is better, so not for a check as it is."""
    pairs = list(_texts(outputs, labels))
    return sum(edit_distance(*pair) for pair in pairs) / sum(len(truth) for _, truth in pairs)


def character_accuracy(outputs: Outputs, labels: Labels) -> float:
    """One minus the character error rate."""
    return 1 - character_error_rate(outputs, labels)


# Text detection: a probability map [1,1,H,W]; a label holds the true boxes [K,4] as left, top,
# right, bottom in pixels of the input.


def detection_f1(outputs: Outputs, labels: Labels) -> float:
    """F1 over all pages; a box is found when its IoU with a true one is at least 0.5."""
    hits = found_count = true_count = 0
    for output, label in _zip(outputs, labels):
        found, truth = find_boxes(only_output(output)[0, 0]), label.reshape(-1, 4)
        hits += match_boxes(found, truth)
        found_count += len(found)
        true_count += len(truth)
    return 2 * hits / max(found_count + true_count, 1)


# Sentence encoding: token vectors [1,S,D]; a label is [set, text, tokens, partner, rating,
# partner, rating, ...]: the number of the data set, of the text in it, how many tokens are real,
# and each text of the set that people compared with it.

WORDSIM353, SIMLEX999, LEE = range(3)
Correlation = Callable[[Array, Array], Any]
CORRELATIONS: dict[int, Correlation] = {
    WORDSIM353: stats.spearmanr,
    SIMLEX999: stats.spearmanr,
    LEE: stats.pearsonr,
}


def mean_pool(tokens: Array, count: int) -> Array:
    """The mean of the first `count` token vectors, at unit length."""
    mean = tokens[0, :count].astype(np.float64).mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def rated_similarities(outputs: Outputs, labels: Labels, data_set: int) -> tuple[Array, Array]:
    """The model's cosine and people's rating of every pair that is there with both its texts."""
    vectors: dict[int, Array] = {}
    pairs: list[tuple[int, int, float]] = []
    for output, label in _zip(outputs, labels):
        if int(label[0]) == data_set:
            text = int(label[1])
            vectors[text] = mean_pool(only_output(output), int(label[2]))
            partners = label[3:].reshape(-1, 2).tolist()
            pairs += [(text, int(other), rating) for other, rating in partners]
    known = [pair for pair in pairs if pair[1] in vectors]
    cosines = [float(vectors[one] @ vectors[other]) for one, other, _ in known]
    return np.array(cosines), np.array([rating for *_, rating in known])


def correlation(outputs: Outputs, labels: Labels, data_set: int) -> float:
    """How cosine and rating agree: Spearman for words, Pearson for Lee's documents."""
    cosines, ratings = rated_similarities(outputs, labels, data_set)
    return float(CORRELATIONS[data_set](cosines, ratings)[0])


def wordsim353(outputs: Outputs, labels: Labels) -> float:
    """Spearman's correlation on the 353 pairs of WordSim."""
    return correlation(outputs, labels, WORDSIM353)


def simlex999(outputs: Outputs, labels: Labels) -> float:
    """Spearman's correlation on the 999 pairs of SimLex."""
    return correlation(outputs, labels, SIMLEX999)


def lee(outputs: Outputs, labels: Labels) -> float:
    """Pearson's correlation on the 1225 pairs of Lee's documents."""
    return correlation(outputs, labels, LEE)


def mean_correlation(outputs: Outputs, labels: Labels) -> float:
    """The mean over the data sets that the labels speak of."""
    present = sorted({int(label[0]) for label in labels})
    return float(np.mean([correlation(outputs, labels, number) for number in present]))


# Language modelling: logits [1,S,vocabulary]; a label is the S token ids that were fed.


def _next_token_scores(outputs: Outputs, labels: Labels) -> Iterator[tuple[Array, Array]]:
    """Log-probability of each next token, and whether it was the likeliest."""
    for output, label in _zip(outputs, labels):
        logits, targets = only_output(output)[0, :-1], label.ravel()[1:].astype(np.intp)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        total = np.exp(shifted).sum(axis=-1, dtype=np.float64)
        chosen = np.take_along_axis(shifted, targets[:, None], axis=-1)[:, 0]
        yield chosen - np.log(total), logits.argmax(axis=-1) == targets


def next_token_log_probability(outputs: Outputs, labels: Labels) -> float:
    """The mean natural logarithm of the probability given to each next token."""
    return _mean(scores for scores, _ in _next_token_scores(outputs, labels))


def next_token_accuracy(outputs: Outputs, labels: Labels) -> float:
    """The share of next tokens that the model holds for the likeliest."""
    return _mean(hits for _, hits in _next_token_scores(outputs, labels))


def perplexity(outputs: Outputs, labels: Labels) -> float:
    """exp(-next_token_log_probability): lower is better, so not for a check as it is."""
    return float(np.exp(-next_token_log_probability(outputs, labels)))


# Against another model, for example FP32 against int8: no labels needed.


def agreement(outputs: Outputs, reference: Outputs) -> float:
    """The share of positions (last axis: classes) at which both models choose the same class."""
    pairs = _zip(map(only_output, outputs), map(only_output, reference))
    return _mean(one.argmax(axis=-1) == other.argmax(axis=-1) for one, other in pairs)


def sqnr(outputs: Outputs, reference: Outputs) -> float:
    """Power of the reference over power of the difference, in dB; inf where they are equal.

    Powers are summed over all outputs of all samples.
    """
    signal = noise = 0.0
    for one, other in _zip(outputs, reference):
        for name, array in other.items():
            signal += float(np.square(array, dtype=np.float64).sum())
            noise += float(np.square(one[name] - array, dtype=np.float64).sum())
    return float("inf") if noise == 0 else float(10 * np.log10(signal / noise))


def _mean(parts: Iterable[Array]) -> float:
    """The mean over all elements of all parts."""
    flat = [part.ravel() for part in parts]
    return float(np.concatenate(flat).mean(dtype=np.float64))


def _zip(first: Iterable[Any], second: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(first, second, strict=True)
