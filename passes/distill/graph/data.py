"""Batches of samples with the teacher's answers, computed once per sample and kept while small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from onnxslim.analyses.collect import parts_of, stackable, stacked
from onnxslim.analyses.observe import padding_mask, unpadded
from onnxslim.analyses.seen import observed_shapes
from onnxslim.ir import Array, Model
from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.convert import quick, to_torch
from onnxslim.passes.distill.graph.program import Program
from onnxslim.runtime.samples import Feed, Samples
from onnxslim.runtime.session import Session, open_session

HELD = 1 << 30
"""Bytes of answers that are kept."""

AT_ONCE = 2 << 30
"""Bytes of activations that one part may hold; larger batches go through in several parts, whose
gradients add up."""

Answers = Mapping[str, Array]


@dataclass(frozen=True)
class Part:
    """Samples of equal shapes: what torch is fed with, what the teacher answers, their share."""

    feed: dict[str, Tensor]
    wanted: dict[str, Tensor]
    share: float
    kept: dict[str, Tensor]  # the rows that are no padding, where there is any


@dataclass
class Pool:
    """The calibration samples; `names` are values of the teacher to be matched.

    What torch does not compute of the student (`program.borders`) is run by ONNX Runtime.
    """

    samples: Samples
    teacher: Model
    student: Model
    program: Program
    names: Sequence[str]
    threads: int
    together: bool = False
    most: int = 1 << 30  # samples in a part
    _answers: dict[int, Answers] = field(default_factory=dict[int, Answers])
    _bytes: int = 0

    def __post_init__(self) -> None:
        """Open the sessions, and see whether samples may share a run."""
        self._teacher = self._open(self.teacher, self.names)
        own = self.program.borders
        self._student = self._open(self.student, own) if own else None
        self.together = stackable(self._teacher, self.samples, self.names)
        if self._student is not None and self.together:
            self.together = stackable(self._student, self.samples, own)

    def _open(self, model: Model, names: Sequence[str]) -> Session:
        """Its threads do not wait actively: torch's work in between."""
        return open_session(model, extra_outputs=names, threads=self.threads, spinning=False)

    def answers(self, indices: Sequence[int]) -> list[Answers]:
        """What the teacher says to these samples, and the student's values at the borders."""
        new = [i for i in indices if i not in self._answers]
        fresh: dict[int, Answers] = {}
        for group in self._groups(new):
            feed = stacked([self.samples[i] for i in group])
            found = self._teacher.run(feed, self.names)
            if self._student is not None:
                borders = self._student.run(feed, self.program.borders)
                found |= {f"border {name}": value for name, value in borders.items()}
            parts = {name: parts_of(value, len(group)) for name, value in found.items()}
            for at, index in enumerate(group):
                fresh[index] = {name: part[at] for name, part in parts.items()}
        for index, answer in fresh.items():
            size = sum(array.nbytes for array in answer.values())
            if self._bytes + size <= HELD:
                self._bytes += size
                self._answers[index] = {name: a.copy() for name, a in answer.items()}
        return [self._answers.get(i) or fresh[i] for i in indices]

    def batch(self, indices: Sequence[int]) -> list[Part]:
        """The samples as parts of equal shapes."""
        answers = dict(zip(indices, self.answers(indices), strict=True))
        return [
            self._part([self.samples[i] for i in group], [answers[i] for i in group], len(indices))
            for group in self._groups(indices)
        ]

    def _part(self, feeds: Sequence[Feed], answers: Sequence[Answers], total: int) -> Part:
        feed, wanted = stacked(feeds), stacked(answers)
        program = self.program

        def tensor(array: Array) -> Tensor:
            return quick(to_torch(np.asarray(array), program.dtype, program.device))

        given = {name: tensor(feed[name]) for name in program.inputs if name in feed}
        given |= {name: tensor(wanted[f"border {name}"]) for name in program.borders}
        mask = padding_mask(feed)
        rows = {name: unpadded(wanted[name], mask) for name in self.names}
        kept = {
            name: torch.tensor(found, device=program.device)
            for name, found in rows.items()
            if found is not None and mask is not None and not mask.all()
        }
        goals = {name: tensor(wanted[name]) for name in self.names}
        return Part(given, goals, len(feeds) / total, kept)

    def _groups(self, indices: Sequence[int]) -> list[list[int]]:
        if not self.together:
            return [[i] for i in indices]
        groups: dict[object, list[int]] = {}
        for index in indices:
            feed = self.samples[index]
            key = tuple((name, array.shape) for name, array in feed.items())
            groups.setdefault(key, []).append(index)
        return [
            group[start : start + self.most]
            for group in groups.values()
            for start in range(0, len(group), self.most)
        ]


def fitting(model: Model, feed: Feed, threads: int) -> int:
    """How many samples like this one may go through the model in one part.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    shapes = observed_shapes(model, feed, threads).values()
    return max(1, AT_ONCE // max(sum(4 * prod(shape) for shape in shapes), 1))


def outputs_in_common(teacher: Model, student: Model) -> list[str]:
    """Names of the outputs that both models have."""
    theirs = {str(v.name) for v in teacher.graph.outputs}
    return [str(v.name) for v in student.graph.outputs if str(v.name) in theirs]
