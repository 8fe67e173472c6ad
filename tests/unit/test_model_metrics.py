"""Metrics of the outside models on cases small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models import detection, metrics
from models.metrics import Array


def outputs(*arrays: Array) -> list[dict[str, Array]]:
    return [{"y": array} for array in arrays]


def one_hot(classes: list[int], count: int) -> Array:
    return np.eye(count, dtype=np.float32)[classes][None]


def test_top1_counts_right_classes() -> None:
    scores = outputs(np.array([[0.1, 0.9]]), np.array([[0.8, 0.2]]), np.array([[0.3, 0.7]]))
    labels = [np.array(1), np.array([0]), np.array(0)]
    assert metrics.top1(scores, labels) == pytest.approx(2 / 3)


def test_a_model_with_two_outputs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one output, got \['a', 'b'\]"):
        metrics.top1([{"a": np.zeros((1, 2)), "b": np.zeros((1, 2))}], [np.array(0)])


def test_samples_without_label_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        metrics.top1(outputs(np.zeros((1, 2))), [])


def test_area_under_curve_counts_pairs_and_halves_ties() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.1])
    positive = np.array([True, True, False, False])
    # of the 4 pairs 3 are in order and one is a tie
    assert metrics.area_under_curve(scores, positive) == pytest.approx(3.5 / 4)
    assert metrics.area_under_curve(-scores, positive) == pytest.approx(0.5 / 4)


def test_area_under_curve_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="positives and negatives, got 2 and 0"):
        metrics.area_under_curve(np.zeros(2), np.ones(2, bool))


def test_frame_auc_reads_the_notes_of_three_outputs() -> None:
    label = np.array([[1, 0], [0, 0]])
    good = {metrics.NOTES: np.array([[[0.9, 0.1], [0.2, 0.1]]]), "other": np.zeros((1, 2, 2))}
    assert metrics.frame_auc([good], [label]) == 1.0
    assert metrics.frame_auc([good], [1 - label]) == 0.0


def test_sqnr_adds_up_all_outputs() -> None:
    reference = [{"a": np.array([3.0]), "b": np.array([1.0])}]
    found = [{"a": np.array([3.0]), "b": np.array([0.0])}]
    assert metrics.sqnr(found, reference) == pytest.approx(10.0)  # 9 + 1 over 1
    assert metrics.sqnr(reference, reference) == math.inf


def test_greedy_decode_joins_repeats_and_drops_blanks() -> None:
    assert metrics.greedy_decode(one_hot([0, 3, 3, 0, 3, 1, 1, 0], 4)) == [3, 3, 1]


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [([], [], 0), ([], [1, 2], 2), ([1, 2, 3], [1, 3], 1), ([1, 2, 3], [3, 2, 1], 2)],
)
def test_edit_distance(first: list[int], second: list[int], distance: int) -> None:
    assert metrics.edit_distance(first, second) == distance
    assert metrics.edit_distance(second, first) == distance


def test_text_metrics() -> None:
    scores = outputs(one_hot([1, 0, 2], 4), one_hot([3, 3, 1], 4))
    labels = [np.array([1, 2]), np.array([3, 2])]
    assert metrics.exact_lines(scores, labels) == 0.5
    assert metrics.character_error_rate(scores, labels) == 0.25
    assert metrics.character_accuracy(scores, labels) == 0.75


def page() -> Array:
    """Text kernels of two lines, and a speck."""
    probability = np.zeros((60, 100), np.float32)
    probability[10:20, 10:70] = 0.9
    probability[40:50, 20:90] = 0.9
    probability[30, 30] = 0.9
    return probability


def test_boxes_grow_by_the_unclip_distance() -> None:
    grow = 60 * 10 * detection.UNCLIP_RATIO / (2 * (60 + 10))
    boxes = detection.find_boxes(page())
    assert boxes.shape == (2, 4)
    np.testing.assert_allclose(boxes[0], [10 - grow, 10 - grow, 70 + grow, 20 + grow])


def test_boxes_stay_on_the_page_and_may_be_none() -> None:
    full = detection.find_boxes(np.ones((20, 30), np.float32))
    np.testing.assert_array_equal(full, [[0, 0, 30, 20]])
    assert detection.find_boxes(np.zeros((20, 30), np.float32)).shape == (0, 4)


def test_overlaps() -> None:
    first = np.array([[0, 0, 2, 2], [5, 5, 6, 6]], float)
    np.testing.assert_allclose(
        detection.overlaps(first, np.array([[0, 1, 2, 3]], float)), np.array([[1 / 3], [0]])
    )


def test_detection_f1_uses_each_box_once() -> None:
    truth = detection.find_boxes(page())
    missing = np.vstack([truth, [[0, 0, 5, 5]]])
    assert metrics.detection_f1(outputs(page()[None, None]), [truth]) == 1
    assert metrics.detection_f1(outputs(page()[None, None]), [missing]) == pytest.approx(4 / 5)
    assert detection.match_boxes(truth[[0, 0]], truth) == 1


def test_correlations_take_pairs_from_the_labels() -> None:
    angles = [0.0, 0.2, 0.9]
    vectors = [np.array([[[math.cos(a), math.sin(a)], [7.0, 9.0]]]) for a in angles]
    labels = [np.array([2, 0, 1, 1, 0.9, 2, 0.1]), np.array([2, 1, 1, 2, 0.4]), np.array([2, 2, 1])]
    cosines, ratings = metrics.rated_similarities(outputs(*vectors), labels, metrics.LEE)
    np.testing.assert_allclose(cosines, np.cos([0.2, 0.9, 0.7]))
    np.testing.assert_array_equal(ratings, [0.9, 0.1, 0.4])
    expected = np.corrcoef(cosines, ratings)[0, 1]
    assert metrics.lee(outputs(*vectors), labels) == pytest.approx(expected)
    assert metrics.mean_correlation(outputs(*vectors), labels) == pytest.approx(expected)


def test_word_sets_are_ranked() -> None:
    vectors = [np.array([[[math.cos(a), math.sin(a)]]]) for a in (0.0, 0.1, 0.5, 1.5)]
    labels = [
        np.array([0, 0, 1, 1, 9, 2, 8, 3, 1]),
        *(np.array([0, text, 1]) for text in (1, 2, 3)),
    ]
    assert metrics.wordsim353(outputs(*vectors), labels) == pytest.approx(1)


def test_pairs_with_a_missing_text_are_left_out() -> None:
    labels = [np.array([1, 0, 1, 5, 3.0])]
    cosines, _ = metrics.rated_similarities(outputs(np.ones((1, 1, 2))), labels, metrics.SIMLEX999)
    assert cosines.size == 0


def test_mean_pooling_ignores_padding() -> None:
    tokens = np.array([[[2.0, 0.0], [0.0, 2.0], [50.0, 0.0]]])
    np.testing.assert_allclose(metrics.mean_pool(tokens, 2), [0.5**0.5, 0.5**0.5])


def test_next_token_metrics() -> None:
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [1.0, 1.0, 1.0]]]))
    labels = [np.array([2, 0, 1])]
    expected = (math.log(0.5) + math.log(0.2)) / 2
    assert metrics.next_token_log_probability(outputs(logits), labels) == pytest.approx(expected)
    assert metrics.perplexity(outputs(logits), labels) == pytest.approx(math.exp(-expected))
    assert metrics.next_token_accuracy(outputs(logits), labels) == 0.5


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[[1e4, 0.0], [0.0, 0.0]]], np.float32)
    assert metrics.perplexity(outputs(logits), [np.array([0, 0])]) == pytest.approx(1)


def test_comparison_with_a_reference() -> None:
    reference = outputs(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]]))
    other = outputs(np.array([[3.0, 3.5]]), np.array([[0.0, 1.0]]))
    assert metrics.agreement(other, reference) == 0.5
    assert metrics.sqnr(other, reference) == pytest.approx(10 * math.log10(26 / 2.25))
    assert metrics.sqnr(reference, reference) == math.inf
