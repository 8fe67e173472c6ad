"""Boxes out of a text detector's probability map, and their match with true boxes.

Post-processing of DB (Liao et al., "Real-time Scene Text Detection with Differentiable
Binarization", 2020) for upright text: threshold, connected components, unclip.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

Array = NDArray[Any]
THRESHOLD = 0.3
BOX_THRESHOLD = 0.6
UNCLIP_RATIO = 1.6
SMALLEST_SIDE = 3
IOU = 0.5


def find_boxes(probability: Array) -> Array:
    """Boxes [K,4] (left, top, right, bottom) of the text in a map [H,W]."""
    labelled, _ = ndimage.label(probability > THRESHOLD, structure=np.ones((3, 3)))
    boxes = []
    for down, across in ndimage.find_objects(labelled):
        height, width = down.stop - down.start, across.stop - across.start
        if min(height, width) < SMALLEST_SIDE or probability[down, across].mean() < BOX_THRESHOLD:
            continue
        grow = width * height * UNCLIP_RATIO / (2 * (width + height))
        box = (across.start - grow, down.start - grow, across.stop + grow, down.stop + grow)
        boxes.append(box)
    edge = np.array(probability.shape[::-1] * 2, float)
    return np.asarray(np.clip(np.array(boxes, float).reshape(-1, 4), 0, edge))


def overlaps(first: Array, second: Array) -> Array:
    """Intersection over union of every box [K,4] with every box [L,4], as [K,L]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def match_boxes(found: Array, truth: Array) -> int:
    """The most pairs, each box used once, whose IoU is at least 0.5."""
    good = overlaps(found, truth) >= IOU
    rows, columns = optimize.linear_sum_assignment(good, maximize=True)
    return int(good[rows, columns].sum())
