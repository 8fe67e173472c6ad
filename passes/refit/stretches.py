"""A model that is run on the same samples again and again, each time for later values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.held_out import runs_out, split
from onnxslim.errors import ConfigError
from onnxslim.ir import Array, Model
from onnxslim.runtime.samples import Feed, Samples
from onnxslim.runtime.session import Optimize, Session, open_part, open_session

KEPT = 256 << 20
"""Bytes of inner values that are kept of all samples together."""
_KINDS = "fiub"  # of what ONNX Runtime takes and gives as arrays of numpy


class Stretches:
    """Runs that go on where an earlier one was told to: what crosses that place is kept of each
    sample, at most `budget` bytes in all, and where it is more the next run starts earlier.

    Nothing before the place may change afterwards. A model with subgraphs is run as a whole.
    """

    def __init__(
        self,
        model: Model,
        samples: Samples,
        threads: int,
        budget: int = KEPT,
        optimize: Optimize = "all",
    ) -> None:
        self.model, self.samples, self.threads, self.budget = model, samples, threads, budget
        self.optimize: Optimize = optimize
        self.kept: list[Feed] = []

    def over(self, names: Sequence[str], later: Sequence[str] = ()) -> Iterator[dict[str, Array]]:
        """The values with these names, sample by sample.

        `later` are outputs of nodes: later runs ask for nothing that comes before the first of
        those nodes but what it and others after it read.

        Raises:
            RuntimeUnavailable: ONNX Runtime cannot run the model.
        """
        crossing = self._crossing(later)
        wanted = list(dict.fromkeys([*names, *crossing]))
        session = self._open(wanted)
        found: list[Feed] = []
        for number, feed in enumerate(self.samples):
            before = self.kept[number] if self.kept else {}
            missing = [name for name in wanted if name not in before]
            made = {} if session is None else session.run({**feed, **before}, missing)
            values = {**before, **made}
            if crossing:
                found.append({name: values[name] for name in crossing})
                crossing = crossing if self._has_room(found[-1]) else []
            yield {name: values[name] for name in names}
        if crossing:
            self.kept = found

    def outputs(self, first: int) -> Iterator[dict[str, Array]]:
        """The model's outputs, of the samples from this number on; what was kept stays."""
        names = [str(value.name) for value in self.model.graph.outputs]
        session = self._open(names)
        for number in range(first, len(self.samples)):
            before = self.kept[number] if self.kept else {}
            missing = [name for name in names if name not in before]
            feed = {**self.samples[number], **before}
            made = {} if session is None else session.run(feed, missing)
            yield {name: made[name] if name in made else before[name] for name in names}

    def _open(self, wanted: Sequence[str]) -> Session | None:
        """What makes these values from those kept; nothing where they are among them."""
        known = list(self.kept[0]) if self.kept else []
        missing = [name for name in wanted if name not in known]
        if not missing:
            return None
        if known:
            part = ir.snapshot(self.model)
            try:
                ir.cut(part, inputs=known, outputs=missing)
                return open_session(
                    part, threads=self.threads, optimize=self.optimize, spinning=False
                )
            except ConfigError:  # nothing tells the type of a value
                self.kept = []
        return open_part(self.model, wanted, threads=self.threads, optimize=self.optimize)

    def _crossing(self, later: Sequence[str]) -> list[str]:
        """What nodes from the first of those that make `later` on read of those before it."""
        nodes, marks = list(self.model.graph), set(later)
        if any(True for node in nodes for _ in ir.subgraphs(node)):
            return []
        places = (at for at, n in enumerate(nodes) if any(v.name in marks for v in n.outputs))
        place = next(places, 0)
        made = {value for node in nodes[:place] for value in node.outputs}
        read = (v for node in nodes[place:] for v in node.inputs if v is not None and v in made)
        return list(dict.fromkeys(str(value.name) for value in read))

    def _has_room(self, kept: Feed) -> bool:
        arrays = list(kept.values())
        if any(not isinstance(a, np.ndarray) or a.dtype.kind not in _KINDS for a in arrays):
            return False
        return len(self.samples) * sum(a.nbytes for a in arrays) <= self.budget


@dataclass(frozen=True)
class Halves:
    """Samples to fit to, and those held out, which are so many runs of neighbours."""

    fit: Samples
    held_out: Samples
    runs: int
    both: Samples  # those to fit to, then those held out


def halves(samples: Samples, most: int) -> Halves:
    """So many of the samples at most, evenly spread, in two parts (`split`)."""
    kept, out = split(len(samples), most)
    both = samples.take([*kept, *out])
    return Halves(samples.take(kept), samples.take(out), runs_out(len(samples)), both)


@dataclass(frozen=True)
class Pair:
    """An original and what was made of it, on the same samples."""

    old: Stretches
    new: Stretches
    parts: Halves

    @classmethod
    def of(cls, original: Model, model: Model, parts: Halves, threads: int) -> Pair:
        """Both from their inputs on; float weights of the second are taken as they are."""
        new = Stretches(model, parts.both, threads, optimize="float")
        return cls(Stretches(original, parts.both, threads), new, parts)
