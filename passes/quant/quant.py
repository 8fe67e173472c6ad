"""Int8 for Conv, Gemm and MatMul, and for what lies between them, in five steps.

prepare (fold affine maps) -> know (statistics, or BatchNormalization) -> choose (trials on the
calibration samples) -> rewrite -> audit (what the runtime makes of it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Model
from onnxslim.passes.quant.audit.accepted import rejected
from onnxslim.passes.quant.place.known import known_of
from onnxslim.passes.quant.place.sized import bytes_before
from onnxslim.passes.quant.report import Done, result_of
from onnxslim.passes.quant.rivals import quantized
from onnxslim.passes.quant.selection import check_selection
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Pass, PassResult, option
from onnxslim.pipeline.fingerprint import fingerprint

TIGHTER_DB = 3.0
"""By how much the goal rises when the check fails."""

NEAR_DB = 0.5
"""Goals that differ by less are the same."""

LEAST_SHARE = 0.1
"""Of the weights, the share that may at least stay in float once the check has failed."""


FEWEST_BITS: Mapping[str, int] = {"int8": 4, "weight": 2}
"""Of weights, by scheme; 7 elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Quant(Pass):
    """Conv | Gemm | MatMul -> the same between Q and DQ, with int8 weights.

    Static with calibration samples; what lies in subgraphs, where these see nothing, quantizes
    its input as it comes (dynamic: MatMul and Gemm). Without samples all MatMul and Gemm are
    dynamic, and Conv takes its ranges from BatchNormalization where there is one. Whatever the
    outputs suffer from too much stays in float and is in the report.
    """

    name: ClassVar[str] = "quant"
    summary: ClassVar[str] = "int8 weights and activations where the target runs them fast"
    guarded: ClassVar[bool] = True
    inlines: ClassVar[bool] = True

    scheme: Literal["auto", "int8", "int16", "fp8", "dynamic", "weight", "fp16", "bf16"] = option(
        "auto",
        "int8: ranges fixed beforehand; int16: activations of 16 bits, fp8: 8-bit floats, where "
        "the target has them; dynamic: without data; weight: only weights, in "
        "blocks; fp16, bf16: 16-bit floats, on CPUs for the size of the file only",
    )
    per_channel: bool = option(True, "one scale per output channel of a weight, else one for all")
    weight_bits: int = option(
        8,
        "7 avoids saturation on x86 without VNNI; 4 to 6 are for scheme=int8, with scales fitted "
        "to the data, 4 stored as int4; scheme=weight takes 2 to 8, stores 4 or 8",
        "7 or 8, with scheme=int8 4 to 8, with scheme=weight 2 to 8",
    )
    block_size: int = option(32, "inputs with one scale in scheme=weight", "16, 32, 64, 128 or 256")
    table_bits: int = option(
        8, "the same of an embedding that is the last layer's weight too, if more", "2 to 8"
    )
    weight_form: Literal["standard", "nbits"] = option(
        "standard",
        "of scheme=weight: DequantizeLinear, which ONNX Runtime fuses, or its own MatMulNBits",
    )
    ranges: Literal["auto", "minmax", "percentile", "mse", "entropy", "output"] = option(
        "auto",
        "how a tensor's range is chosen: mse by the tensor's own error, output by that of the "
        "layers that read it, entropy as TensorRT does; auto takes what is best on calibration "
        "samples",
    )
    percentile: float = option(
        99.999, "share of the numbers inside of a percentile range", "50 to 100"
    )
    bias_correction: bool = option(True, "restore the means of outputs, which rounding shifts")
    rounding: Literal["auto", "nearest", "second_order", "sequential"] = option(
        "auto",
        "of weights; second_order makes up for each error, and costs a calibration run; sequential "
        "also for the errors of all layers before, and costs a run for each layer; auto does so "
        "for 4 to 6 bits with 256 samples or more",
    )
    equalize: Literal["auto", "on", "off"] = option(
        "auto",
        "move what channels have in common behind the layers that read them, scale channels "
        "between two layers so that both weights round better, and move constants between them, "
        "where samples show a gain; between two layers auto does so where weights have one scale "
        "each",
    )
    smooth: Literal["auto", "on", "off"] = option(
        "auto", "move outliers of MatMul and Gemm inputs into their weights"
    )
    goal: float = option(12.0, "dB of the outputs below which layers are left in float", "0 to 60")
    aim: float = option(
        20.0,
        "dB of the outputs up to which more is left in float where that takes 3 % of the time for "
        "each, 15 at most; of auto",
        "0 to 60",
    )
    wide_share: float = option(
        0.1, "of the weights, at most so many keep 8 bits where the others get fewer", "0 to 1"
    )
    float_share: float = option(
        0.05,
        "of the weights, at most so many stay float; of models with few weights up to 256 kB where "
        "the goal needs it, or the aim at little time, and they are still a tenth smaller and "
        "faster than in float",
        "0 to 1",
    )
    size: float | None = option(
        None,
        "bytes of all weights after over before, at most, of auto and int8: which get 4 bits, 8 or "
        "stay float is chosen for the least noise, instead of wide_share and float_share",
        "0 to 1",
    )
    portable: bool = option(
        False,
        "only operators that every runtime has; else also the target's own where these are faster",
    )
    ops: tuple[str, ...] = option((), "quantize only these operators; all that pay when empty")
    skip: tuple[str, ...] = option((), "names of nodes to leave in float; * and ? as in files")

    def __post_init__(self) -> None:
        fewest = FEWEST_BITS.get(self.scheme, 7)
        if not fewest <= self.weight_bits <= 8:
            others = "(4 to 8 with scheme=int8, 2 to 8 with scheme=weight)"
            expected = f"{fewest} to 8" if fewest < 7 else f"7 or 8 {others}"
            raise ValueError(f"weight_bits={self.weight_bits}, expected {expected}")
        if self.portable and self.weight_form == "nbits":
            raise ValueError("portable=true, expected weight_form=standard with it")
        if not 2 <= self.table_bits <= 8:
            raise ValueError(f"table_bits={self.table_bits}, expected 2 to 8")
        if self.block_size not in (16, 32, 64, 128, 256):
            raise ValueError(f"block_size={self.block_size}, expected 16, 32, 64, 128 or 256")
        if not 50 <= self.percentile <= 100:
            raise ValueError(f"percentile={self.percentile:g}, expected 50 to 100")
        if not 0 <= self.goal <= 60:
            raise ValueError(f"goal={self.goal:g}, expected 0 to 60")
        if not 0 <= self.aim <= 60:
            raise ValueError(f"aim={self.aim:g}, expected 0 to 60")
        if not 0 <= self.wide_share <= 1:
            raise ValueError(f"wide_share={self.wide_share:g}, expected 0 to 1")
        if not 0 <= self.float_share <= 1:
            raise ValueError(f"float_share={self.float_share:g}, expected 0 to 1")
        if self.size is not None and not 0 < self.size <= 1:
            raise ValueError(f"size={self.size:g}, expected 0 to 1")

    def stricter(self, result: PassResult) -> Quant | None:
        """With a higher goal and more weights that may stay in float, or have 8 bits, while that
        changes anything; what is dynamic has no goal."""
        db = result.stats.get("output_db")
        if not isinstance(db, float) or (db < self.goal and self.float_share == 1):
            return None
        goal = round(max(self.goal, db) + TIGHTER_DB, 1)
        share = min(1.0, max(2 * self.float_share, LEAST_SHARE))
        wide = min(1.0, 4 * self.wide_share) if self.scheme == "weight" else self.wide_share
        if goal > 60:
            return None
        return replace(self, goal=goal, float_share=share, wide_share=wide)

    def between(self, result: PassResult, passed: Pass) -> Quant | None:
        """Halfway between what was reached and the goal that was enough, unless that is near."""
        db = result.stats.get("output_db")
        if not isinstance(passed, Quant) or not isinstance(db, float):
            return None
        goal = round((max(self.goal, db) + passed.goal) / 2, 2)
        return replace(passed, goal=goal) if passed.goal - goal >= NEAR_DB else None

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Quantize the model in place; it stays untouched when nothing can be quantized.

        Raises:
            OptionError: `ops` or `skip` name what the model does not have.
                Or a size cannot be reached; says the least that can.
            RuntimeUnavailable: calibration samples are given and the model cannot be run.
        """
        check_selection(model, self.ops, self.skip)
        before = ir.snapshot(model)
        known = known_of(ctx, (fingerprint(model), replace(self, goal=0.0, float_share=0.0)))
        done = quantized(model, ctx, self, known)
        self._check_size(before, model, done, ctx)
        reason = rejected(before, model, ctx.env) if done.count else None
        if done.count and reason is None:
            return result_of(done, before)
        ir.restore(model, before)
        ctx.analyses.invalidate(Aspect.ALL)
        whole = () if reason is None else (Declined("model", reason),)
        return PassResult(declined=(*whole, *done.declined), notes=done.notes)

    def _check_size(self, before: Model, model: Model, done: Done, ctx: Context) -> None:
        """Raises OptionError where the weights take more than was asked for."""
        share = ir.weight_bytes(model) / max(bytes_before(before, ctx), 1)
        if self.size is not None and share > self.size:
            ir.restore(model, before)
            kept = next((f", as '{d.node}' stays in float: {d.reason}" for d in done.declined), "")
            raise OptionError(
                f"quant: size={self.size:g}: {share:.3f} of the bytes of all weights are left{kept}"
            )
