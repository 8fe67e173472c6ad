"""The pass protocol. Options are the fields of the pass, which is a frozen dataclass."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

from onnxslim.ir import Model
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.opened import Opened
from onnxslim.runtime.samples import Feed, Samples
from onnxslim.runtime.session import Optimize
from onnxslim.targets.base import Target

Progress = Callable[[str, int, int], None]
"""progress(what, done, total): told by long loops, shown by the command line."""


def silent(what: str, done: int, total: int) -> None:
    """The progress of a run that nobody watches."""


@dataclass(frozen=True)
class Environment:
    """What is the same for all passes of a run: no globals, no environment variables."""

    target: Target
    executor: Executor
    calib: Samples | None = None
    evaluation: Samples | None = None  # never overlaps with calib
    made_up: Samples | None = None  # inputs without meaning, of sizes that the user chose
    threads: int = 1
    seed: int = 0
    cache: Path | None = None
    progress: Progress = silent
    opened: Opened = field(default_factory=Opened)

    @property
    def arithmetic(self) -> Optimize:
        """How to run a model to see what it computes on the target. Kernels for integers of this
        machine may saturate where the target's do not: for those, sums are exact."""
        return "all" if self.target.here else "exact"


@dataclass(frozen=True)
class Context:
    """All that a pass may use besides the model."""

    env: Environment
    analyses: AnalysisManager
    original: Model  # as it was loaded; read only
    applied: tuple[Pass, ...] = ()  # the passes that ran before this one, in order
    memory: dict[object, object] = field(default_factory=dict[object, object])  # between tries


@dataclass(frozen=True)
class Declined:
    """Something that a pass could have changed and did not, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class Layer:
    """What a pass did to one layer: a row of the layer table."""

    node: str
    op: str
    action: str
    predicted_db: float | None = None  # signal to noise of the layer's output, in dB


@dataclass(frozen=True)
class Verdict:
    """What the check found: the original and the result compared on samples held out."""

    metric: str
    before: float | None
    after: float | None
    drop: float | None
    limit: float | None
    samples: int
    sqnr_db: Mapping[str, float]  # per graph output
    passed: bool
    synthetic: bool = False  # no data was given: nothing is claimed about accuracy
    interval: tuple[float, float] | None = None  # 95 % confidence of `after`, for accuracies
    drop_interval: tuple[float, float] | None = None  # 95 % of `drop`, for accuracies with labels
    within_tolerance: Mapping[str, float] = field(default_factory=dict[str, float])  # per output
    reasons: tuple[str, ...] = ()  # why it failed


@dataclass(frozen=True)
class PassResult:
    """What a pass did. `changed` NONE promises that the model is as it was."""

    changed: Aspect = Aspect.NONE
    stats: Mapping[str, int | float | str] = field(default_factory=dict[str, "int | float | str"])
    declined: tuple[Declined, ...] = ()
    layers: tuple[Layer, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict[str, str])  # old value name -> new
    verdict: Verdict | None = None  # of a check
    notes: tuple[str, ...] = ()  # plain sentences for the user
    timed_on: Feed | None = None  # what the guard times the result on, instead of a sample


@dataclass(frozen=True, kw_only=True)
class Pass(ABC):
    """Rewrites a model in place and leaves it valid. Never loads, saves, clones or prints.

    The fields of a subclass are its options: make each with `option(default, help, range)`, and
    check ranges in `__post_init__` by raising ValueError.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    needs_run: ClassVar[bool] = False  # whether ONNX Runtime must be able to run the model
    guarded: ClassVar[bool] = False  # whether a result slower than the model before is undone
    inlines: ClassVar[bool] = False  # whether calls of the model's functions become bodies first

    def prepare(self, ctx: Context) -> None:  # noqa: B027 - most passes have nothing to refuse
        """Called for every pass before the first one runs: raise what the user must change."""

    @abstractmethod
    def run(self, model: Model, ctx: Context) -> PassResult:
        """Change the model in place and say what was done."""

    def stricter(self, result: PassResult) -> Pass | None:
        """The pass to run instead where the check fails after it; None when it cannot do less.

        `result` is what it did. Must come to an end: each is milder than the one before.
        """
        return None

    def between(self, result: PassResult, passed: Pass) -> Pass | None:
        """A pass milder than this one, after which the check failed, and less mild than `passed`,
        after which it did not; None where there is none to speak of. `result` is what this did.
        """
        return None


T = TypeVar("T")


def option(default: T, help: str, range: str = "") -> T:
    """A field of a pass: its default, one line of help and, in words, the values it takes."""
    return dataclasses.field(default=default, metadata={"help": help, "range": range})
