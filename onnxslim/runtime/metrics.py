"""How well a model does beside its original, sample by sample. Higher is better for every metric.

`top1`       share of samples whose class is the labelled one
`agreement`  share of predictions that are the original's; needs no labels
`cosine`     cosine of the outputs with the original's: mean over samples, least of the outputs
`sqnr`       signal to quantization noise in dB, least of the outputs; needs no labels
`module:function`  the user's own: function(outputs, labels) -> float
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np

from onnxslim.errors import ConfigError, DataError
from onnxslim.runtime.guards import is_array
from onnxslim.runtime.imports import described, import_function, is_function_name
from onnxslim.runtime.intervals import Interval, paired_drop, wilson
from onnxslim.runtime.samples import Array

Outputs = Mapping[str, Any]
"""Output name -> array (or list of arrays), of one run."""


@dataclass(frozen=True)
class Score:
    """A metric of the original and of the result, on the same samples."""

    before: float
    after: float
    interval: Interval | None = None  # 95 % of `after`, for shares of independent samples
    drop_interval: Interval | None = None  # 95 % of the drop, for shares with labels

    @property
    def drop(self) -> float:
        """How much worse the result is, in the metric's own units."""
        return self.before - self.after


class Metric(ABC):
    """Compares two models on samples that come one at a time."""

    @abstractmethod
    def add(self, before: Outputs, after: Outputs, label: Array | None) -> None:
        """One sample: the outputs of both models, and its label."""

    def foresee(self, outputs: Outputs, labels: Sequence[Array]) -> None:  # noqa: B027
        """Raises DataError for labels that cannot fit outputs like these; by itself takes all."""

    @abstractmethod
    def score(self) -> Score:
        """The metric over what was added."""


class Top1(Metric):
    """Counts the predictions that are the labelled class."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._count = self._before = self._lost = self._gained = 0

    def foresee(self, outputs: Outputs, labels: Sequence[Array]) -> None:
        """Of classifiers; pixels that do not count often have a label beyond the classes."""
        scores = outputs[self._output]
        if scores.ndim != 2:
            return
        count = scores.shape[-1]
        for index, label in enumerate(labels):
            if label.dtype.kind in "iu" and np.any((label < 0) | (label >= count)):
                given = " ".join(map(str, label.ravel()))
                raise DataError(
                    f"metric top1: sample {index} has the label {given}; the output "
                    f"'{self._output}' has {count} classes, 0 to {count - 1}"
                )

    def add(self, before: Outputs, after: Outputs, label: Array | None) -> None:
        """Raises DataError where the label is missing or not one class per prediction."""
        first, second = (classes(o[self._output]).ravel() for o in (before, after))
        truth = np.ravel(np.asarray(-1 if label is None else label))
        if label is None or truth.size != first.size or truth.dtype.kind not in "iub":
            raise DataError(
                f"metric top1: {first.size} predictions per sample in the output "
                f"'{self._output}', labels {_described(label)}; give a whole number for each"
            )
        was, now = first == truth, second == truth
        self._count += truth.size
        self._before += int(was.sum())
        self._lost += int((was & ~now).sum())
        self._gained += int((now & ~was).sum())

    def score(self) -> Score:
        """Accuracies, with Wilson's interval and that of the paired drop."""
        after = self._before - self._lost + self._gained
        return Score(
            self._before / self._count,
            after / self._count,
            wilson(after, self._count),
            paired_drop(self._lost, self._gained, self._count),
        )


class Agreement(Metric):
    """Counts the predictions that are the original's."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._same = self._count = 0
        self._independent = True

    def add(self, before: Outputs, after: Outputs, label: Array | None) -> None:
        """Labels are not looked at."""
        first, second = classes(before[self._output]), classes(after[self._output])
        self._independent &= first.ndim < 2  # the steps of a sequence are not
        self._count += first.size
        self._same += int((first == second).sum())

    def score(self) -> Score:
        """The original agrees with itself: 1."""
        interval = wilson(self._same, self._count) if self._independent else None
        return Score(1.0, self._same / self._count, interval)


class Cosine(Metric):
    """Cosine similarity with the original of each real-valued output, flattened per sample."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, before: Outputs, after: Outputs, label: Array | None) -> None:
        """Labels are not looked at."""
        self._count += 1
        for name, value in before.items():
            if is_real(value):
                found = cosine(value, after[name])
                self._sums[name] = self._sums.get(name, 0.0) + found

    def score(self) -> Score:
        """Raises ConfigError for a model without a real-valued output."""
        if not self._sums:
            raise ConfigError("metric cosine: the model has no real-valued output")
        return Score(1.0, min(self._sums.values()) / self._count)


class Custom(Metric):
    """The user's function, which sees all outputs at once: they are kept until then."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._function: Callable[..., Any] = import_function(name)
        self._before: list[dict[str, Any]] = []
        self._after: list[dict[str, Any]] = []
        self._labels: list[Array] = []

    def add(self, before: Outputs, after: Outputs, label: Array | None) -> None:
        """Keeps them."""
        self._before.append(dict(before))
        self._after.append(dict(after))
        if label is not None:
            self._labels.append(label)

    def score(self) -> Score:
        """Raises DataError, with the exception, where the function fails or gives no number."""
        before = self._value(self._before)
        if not math.isfinite(before):
            raise DataError(f"metric {self._name}: {before} for the original; expected a number")
        return Score(before, self._value(self._after))

    def _value(self, outputs: list[dict[str, Any]]) -> float:
        try:
            found = self._function(outputs, list(self._labels))
        except Exception as error:
            raise DataError(f"metric {self._name} failed: {described(error)}") from error
        try:
            return float(found)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"metric {self._name} gave a {type(found).__name__}; expected one number"
            ) from error


def is_real(value: object) -> TypeGuard[Array]:
    """Whether an output is an array of floating-point numbers (low-bit ones included)."""
    if not is_array(value):
        return False
    return value.dtype.kind == "f" or (value.dtype.kind == "V" and "float" in value.dtype.name)


def cosine(first: Array, second: Array) -> float:
    """Cosine of the angle between two arrays as vectors; 1 where both are zero."""
    a, b = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    norms = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    if norms == 0.0:
        return float(not a.any() and not b.any())
    return float(a @ b) / norms


def classes(scores: Array) -> Array:
    """The class with the highest score: over axis 1 of images of scores, else over the last."""
    found: Array = np.argmax(scores, axis=1 if scores.ndim >= 4 else -1)
    return found


def _described(label: Array | None) -> str:
    return "missing" if label is None else f"of shape {list(label.shape)}, {label.dtype}"


def score_outputs(outputs: Outputs) -> list[str]:
    """The outputs that hold scores of at least two classes on an axis."""
    found: list[str] = []
    for name, value in outputs.items():
        if is_real(value) and value.ndim >= 2:
            axis = 1 if value.ndim >= 4 else -1
            found += [name] if value.shape[axis] >= 2 and value.size else []
    return found


def _scores(metric: str, outputs: Outputs) -> str:
    found = score_outputs(outputs)
    if len(found) != 1:
        shapes = ", ".join(f"'{n}' {list(np.shape(v))}" for n, v in outputs.items())
        raise ConfigError(
            f"metric {metric} needs one output of class scores, this model has {len(found)}: "
            f"{shapes}; give --metric module:function or cosine"
        )
    return found[0]


BUILT_IN: MappingProxyType[str, Callable[[Outputs], Metric | None]] = MappingProxyType(
    {
        "top1": lambda outputs: Top1(_scores("top1", outputs)),
        "agreement": lambda outputs: Agreement(_scores("agreement", outputs)),
        "cosine": lambda outputs: Cosine(),
        "sqnr": lambda outputs: None,  # read off the noise that is measured anyway
    }
)


def is_metric(name: str) -> bool:
    """Whether a name is a metric's or has the form `module:function`."""
    return name in BUILT_IN or is_function_name(name)


def make_metric(name: str, outputs: Outputs) -> Metric | None:
    """The metric of a name for a model with such outputs; None for `sqnr`.

    Raises ConfigError where it does not suit the model, DataError where the function is missing.
    """
    return BUILT_IN[name](outputs) if name in BUILT_IN else Custom(name)


def default_metric(outputs: Outputs, labels: Sequence[Array] | None) -> str:
    """`top1` for a classifier with labels, `agreement` for one without, `sqnr` for the rest.

    A classifier here has one output [N, C] with C > 1; its labels are N class numbers below C.
    """
    found = score_outputs(outputs)
    if len(found) != 1 or np.ndim(outputs[found[0]]) != 2:
        return "sqnr"
    rows, count = np.shape(outputs[found[0]])
    if labels is None:
        return "agreement" if len(outputs) == 1 else "sqnr"
    fits = all(
        label.dtype.kind in "iu" and label.size == rows and 0 <= label.min() <= label.max() < count
        for label in labels
    )
    return "top1" if fits else "agreement"
