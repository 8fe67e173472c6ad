"""The students that are measured: how each is made from its teacher, and what teaches it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import onnxslim
from models import fashion_data
from onnxslim import ir
from onnxslim.ir import Array, Editor, Model, Node
from onnxslim.passes.distill.grids import codes_of, grid_of
from onnxslim.runtime.data import load_samples
from onnxslim.runtime.samples import FeedList, Samples
from onnxslim.runtime.session import input_infos
from tests.bench.cases import COMMITTED, Case

IMAGES = 20_000
"""Unlabelled training images of Fashion-MNIST that teach; none of them is evaluated on."""
COMPRESSED_WITH = 1024
"""So many of them at most are given to the compression."""
SEED = 0
THREADS = 2


@dataclass(frozen=True)
class Student:
    """A compression: a pipeline, and what is done to its result."""

    model: str
    title: str
    passes: str
    then: Callable[[Model], None] | None = None


def coarser(bits: int) -> Callable[[Model], None]:
    """Weights of 8 bits rounded to fewer, with the range of each tensor kept; so are the scales of
    biases the products that integer kernels take them for."""

    def change(model: Model) -> None:
        editor, top = Editor(model), 2 ** (bits - 1) - 1
        for node in [n for n in model.graph if ir.op(n) == "DequantizeLinear"]:
            grid = grid_of(node)
            if grid is None or grid.codes.dtype != np.int8:
                continue
            factor = float(np.abs(grid.codes.astype(np.float64)).max() / top)
            centred = np.clip(np.rint(grid.codes / factor), -top, top)
            _store(editor, node, centred, factor)
            for reader, _ in node.outputs[0].uses():
                bias = reader.inputs[2] if len(reader.inputs) > 2 else None
                maker = None if bias is None else bias.producer()
                held = None if maker is None else grid_of(maker)
                if maker is not None and held is not None:
                    _store(editor, maker, np.rint(held.codes / factor), factor)

    return change


def _store(editor: Editor, node: Node, codes: Array, factor: float) -> None:
    held, scale = codes_of(node), ir.array(node.inputs[1])
    before = ir.array(held)
    assert held is not None
    assert scale is not None
    assert before is not None
    editor.replace_initializer(held, codes.astype(before.dtype))
    own = editor.unshare(node, 1)
    editor.replace_initializer(own, (scale * factor).astype(scale.dtype))


def every_other_layer(model: Model) -> None:
    """An encoder with layers 1, 3 and 5 of 6 gone: what they read goes on in their place."""
    values = {str(v.name): v for node in model.graph for v in node.outputs}
    ends = [values[name] for name in layer_ends(model)]
    editor = Editor(model)
    for gone in (1, 3):
        uses = [(use.node, use.idx) for use in ends[gone].uses()]
        editor.rewire(uses, ends[gone - 1])
    last = ends[5].producer()
    before = ends[4].producer()
    assert last is not None
    assert before is not None
    for index, value in enumerate(before.inputs):  # the last norm now norms what layer 4 norms
        last.replace_input_with(index, value)
    editor.remove_dead()


def layer_ends(model: Model) -> list[str]:
    """The values that the layers of the encoder end with, in order: every second norm."""
    norms = [n for n in model.graph if ir.op(n) == "LayerNormalization"]
    return [str(n.outputs[0].name) for n in norms[2::2]]


_FOUR_BITS = "simplify,quant{scheme=int8 weight_bits=4 wide_share=0}"
STUDENTS = (
    Student("fashion_vgg", "25 % of the MACs", "simplify,prune{ratio=0.25}"),
    Student("fashion_resnet", "40 % of the MACs", "simplify,prune{ratio=0.4}"),
    Student(
        "fashion_vit",
        "half of the hidden units, a quarter of the heads",
        "simplify,prune{share=0.5 only=hidden},prune{share=0.25 only=heads}",
    ),
    Student("fashion_vgg", "3 bits", "simplify,quant{scheme=int8 portable=true}", coarser(3)),
    Student("fashion_vgg", "2 bits", "simplify,quant{scheme=int8 portable=true}", coarser(2)),
    Student("fashion_resnet", "3 bits", "simplify,quant{scheme=int8 portable=true}", coarser(3)),
    Student("fashion_vit", "3 bits", "simplify,quant{scheme=int8 portable=true}", coarser(3)),
    Student("efficientnet_lite0", "4 bits", _FOUR_BITS),
    Student("minilm_l6", "layers 0, 2 and 4 of 6", "simplify", every_other_layer),
    Student("efficientnet_lite0_photos", "4 bits", _FOUR_BITS),
    Student("minilm_l6_texts", "layers 0, 2 and 4 of 6", "simplify", every_other_layer),
)


def lessons(case: Case, teacher: Model) -> Samples:
    """The unlabelled samples that teach: for the committed nets images of the training set."""
    if case.name not in COMMITTED:
        return load_samples(case.calib, input_infos(teacher))
    images, _ = fashion_data.load_split("train")
    chosen = np.random.default_rng(SEED).permutation(len(images))[:IMAGES]
    return FeedList([{"input": images[i : i + 1]} for i in chosen])


def made(teacher: Model, student: Student, samples: Samples, cache: Path) -> Path:
    """The file of the student in the cache, made unless it lies there."""
    name = re.sub(r"\W+", "_", f"{student.model} {student.title}")
    path = cache / f"{name}.onnx"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        done = onnxslim.compress(
            ir.snapshot(teacher), passes=student.passes,
            calib=list(spaced(samples, COMPRESSED_WITH)), check=False, allow_slower=True,
            threads=THREADS,
        )  # fmt: skip
        if student.then is not None:
            student.then(done.model)
        ir.save(done.model, path)
    return path


def spaced(samples: Samples, most: int) -> Samples:
    """So many of the samples at most, evenly spaced."""
    count = min(len(samples), most)
    return samples.take([i * len(samples) // count for i in range(count)])
