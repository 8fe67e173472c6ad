"""The result of a run as data. The JSON keys are the field names; a schema keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxslim.pipeline.base import Declined, Layer

SCHEMA = 1


@dataclass(frozen=True)
class Effect:
    """The model after a pass beside the original: shares of the original's, and what it costs."""

    size: float  # bytes of the weights
    macs: float | None
    time: float | None  # of one run, measured in turn with the states after the other passes
    sqnr_db: float | None  # of the worst output
    metric: str  # that of the check
    drop: float | None  # of that metric
    samples: int  # of the check's, all or what a second or two allow


@dataclass(frozen=True)
class PassEntry:
    """What one pass did and took."""

    spec: str
    seconds: float
    peak_mb: float | None  # resident memory of the whole process, highest while the pass ran
    changed: tuple[str, ...]  # of STRUCTURE, SHAPES, WEIGHTS, NUMERICS
    stats: Mapping[str, int | float | str]
    declined: tuple[Declined, ...]
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()
    kept: bool = True  # False: undone, and `declined` says why
    macs: int | None = None  # of one run of the model after this pass
    weight_bytes: int | None = None  # after this pass
    effect: Effect | None = None  # where several passes worked on layers


@dataclass(frozen=True)
class Size:
    """Bytes, external data included: of the files, or of the weights where there are no files."""

    before: int
    after: int


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one run, both models timed in turn; None where not measured."""

    before: float | None
    after: float | None
    threads: int
    ratio: float | None = None  # after over before, the median over the turns
    noise: float | None = None  # relative; a ratio within 1 +- noise says nothing


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one run; None where the shapes are unknown."""

    before: int | None
    after: int | None


@dataclass(frozen=True)
class Nodes:
    """Nodes of all graphs and functions of the model, counted by operator."""

    before: Mapping[str, int] = field(default_factory=dict[str, int])
    after: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class CheckEntry:
    """How the result compares with the original on samples that no pass has seen."""

    metric: str
    before: float | None
    after: float | None
    drop: float | None
    limit: float | None
    samples: int
    sqnr_db: Mapping[str, float]
    passed: bool
    synthetic: bool = False
    interval: tuple[float, float] | None = None
    reasons: tuple[str, ...] = ()
    first_over_budget: str | None = None  # the pass after which the check first fails


@dataclass(frozen=True)
class Report:
    """All that is known about a run."""

    schema: int = field(default=SCHEMA, kw_only=True)
    input: str
    output: str
    target: str
    pipeline: str
    passes: tuple[PassEntry, ...]
    size: Size
    latency_ms: Latency
    macs: Macs
    check: CheckEntry | None
    names: Mapping[str, str]  # values that have another name now
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    versions: tuple[str, ...] = ()
    nodes: Nodes = Nodes()

    def to_json(self) -> str:
        """The report as JSON text, two spaces deep."""
        from onnxslim.report.codec import encode

        return encode(self)

    @staticmethod
    def from_json(text: str) -> Report:
        """The report of its JSON text; raises ConfigError when it is none."""
        from onnxslim.report.codec import decode

        return decode(Report, text)
