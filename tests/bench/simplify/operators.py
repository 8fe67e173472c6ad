"""Operators that torchvision has compiled for another torch, in Python, so that it can be exported.

Only what an export runs: their nodes in the file are ONNX's own.
"""

from __future__ import annotations

import importlib
from typing import Any

torch: Any = importlib.import_module("torch")

_SCHEMES = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
}
_UNUSED = ("qnms", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")


def declare_operators() -> Any:
    """Let torchvision be imported and traced; the result must live as long as that is needed."""
    library = torch.library.Library("torchvision", "DEF")
    for name in (*_SCHEMES, *_UNUSED):
        library.define(name + _SCHEMES.get(name, "(Tensor x) -> Tensor"))
        if name not in ("nms", "qnms"):
            library.define(f"_{name}_backward(Tensor x) -> Tensor")
    library.impl("nms", _nms, "CPU")
    library.impl("roi_align", _roi_align, "CPU")
    for module in ("torchvision.extension", "torchvision.ops.roi_align"):
        importlib.import_module(module).__dict__["_has_ops"] = _present
    return library


def _present() -> bool:
    return True


def _nms(boxes: Any, scores: Any, threshold: float) -> Any:
    """The best few boxes, for something to go on with: only what comes after it is traced."""
    return scores.argsort(descending=True)[:10]


def _roi_align(x: Any, rois: Any, scale: float, height: int, width: int, *rest: Any) -> Any:
    """Zeros of the right shape, for the same reason."""
    return x.new_zeros((rois.shape[0], x.shape[1], height, width))
