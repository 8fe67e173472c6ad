"""Never slower than before: a pass whose result runs slower is undone and says so."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from onnxslim import ir
from onnxslim.errors import OnnxSlimError
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Environment, PassResult
from onnxslim.pipeline.stopwatch import Comparison, Stopwatch
from onnxslim.runtime.samples import FeedList


@dataclass(frozen=True)
class Guard:
    """Undoes a pass that made the model slower."""

    stopwatch: Stopwatch

    def judge(
        self, model: Model, before: Model, result: PassResult, ctx: Context
    ) -> tuple[PassResult, bool]:
        """The result as it stands, and whether the pass was kept; restores the model if not."""
        try:
            times = self._times(model, before, result, ctx.env)
        except OnnxSlimError as error:
            note = f"whether it is faster was not measured: {error}"
            return replace(result, notes=(*result.notes, note)), True
        if not times.slower:
            return result, True
        ir.restore(model, before)
        ctx.analyses.invalidate(Aspect.ALL)
        reason = (
            f"undone: a run takes {times.ratio:.2f} times as long as before "
            f"({times.before_ms:.3g} ms); --allow-slower keeps it"
        )
        declined = (Declined("whole model", reason), *result.declined)
        return PassResult(declined=declined), False  # its notes tell of what is gone

    def _times(
        self, model: Model, before: Model, result: PassResult, env: Environment
    ) -> Comparison:
        """On what the pass chose, if the models run that; else on a sample."""
        if result.timed_on is not None:
            with suppress(OnnxSlimError):
                chosen = replace(env, calib=FeedList([result.timed_on]))
                return self.stopwatch(before, model, chosen)
        return self.stopwatch(before, model, env)
