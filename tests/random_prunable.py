"""Random graphs in which most operators carry channels that can be removed.

A chain from an image to a few numbers: a convolution, steps drawn from tables of templates, and at
the end a matrix product. A template computes {y} of {x}; other fields are weights by kind, or names
of its own (`a`, `b`, ...). All templates are continuous, so that rounding stays rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from string import Formatter

import numpy as np

from onnxslim.ir import Array, Model
from tests.quantizing import build

OPSET = 21
_SIDE = 8
Weight = Sequence[int] | Array


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


_UNARY = """
    Abs Asinh Atan Cos Elu Erf Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu Selu
    Sigmoid Sin Softplus Softsign Tanh Celu Dropout com.microsoft.QuickGelu
"""
_SMALL = "Acos Asin Atanh Cosh Exp Sinh Tan"  # of values between -0.5 and 0.5
_POSITIVE = "Log Reciprocal Sqrt"
_EVERYWHERE = (
    *(f"{{y}} = {op} ({{x}})" for op in _UNARY.split()),
    *(f"{{a}} = Tanh ({{x}}) {{b}} = Mul ({{a}}, {{half}}) {{y}} = {op} ({{b}})"
      for op in _SMALL.split()),
    *(f"{{a}} = Softplus ({{x}}) {{b}} = Add ({{a}}, {{half}}) {{y}} = {op} ({{b}})"
      for op in _POSITIVE.split()),
    "{a} = Softplus ({x}) {b} = Add ({a}, {two}) {y} = Acosh ({b})",
    "{y} = Shrink <lambd = 0.5, bias = 0.5> ({x})",
    "{y} = Clip ({x}, {minus}, {two})",
    "{a} = Cast <to = 11> ({x}) {b} = Tanh ({a}) {y} = Cast <to = 1> ({b})",
    "{a} = IsNaN ({x}) {b} = Not ({a}) {y} = Where ({b}, {x}, {each})",
    "{a} = IsInf ({x}) {y} = Where ({a}, {each}, {x})",
    *(f"{{y}} = {op} ({{x}}, {{each}})" for op in ("Add", "Sub", "Mul", "Max", "Min", "Sum")),
    "{y} = Mean ({x}, {each}, {each2})",
    "{y} = Div ({x}, {vareach})",
    "{a} = Softplus ({x}) {y} = Pow ({a}, {vareach})",
    "{y} = PRelu ({x}, {each})",
    "{a} = Greater ({x}, {each}) {y} = Where ({a}, {x}, {each})",
    "{a} = GreaterOrEqual ({x}, {each}) {y} = Where ({a}, {x}, {each})",
    "{a} = Less ({x}, {each}) {b} = LessOrEqual ({x}, {each2}) {c} = Or ({a}, {b}) "
    "{d} = Max ({each}, {each2}) {y} = Where ({c}, {x}, {d})",
    "{a} = Greater ({x}, {each}) {b} = Greater ({x}, {each2}) {c} = And ({a}, {b}) "
    "{d} = Max ({each}, {each2}) {y} = Where ({c}, {x}, {d})",
    "{a} = Unsqueeze ({x}, {zero}) {b} = Tanh ({a}) {y} = Squeeze ({b}, {zero})",
    "{a} = Gather <axis = AXIS> ({x}, {order}) {y} = Add ({a}, {x})",
    "{a}, {b} = Split <axis = AXIS, num_outputs = 2> ({x}) {c} = Sigmoid ({b}) "
    "{y} = Concat <axis = AXIS> ({a}, {c})",
    "{a} = Slice ({x}, {one}, {end}, {axis}) {b} = Slice ({x}, {zero}, {one}, {axis}) "
    "{y} = Concat <axis = AXIS> ({a}, {b})",
)  # fmt: skip
_IMAGES = (
    "{y} = Conv <pads = [1,1,1,1]> ({x}, {conv})",
    "{y} = Conv <pads = [1,1,1,1]> ({x}, {conv}, {bias})",
    "{y} = Conv <pads = [1,1,1,1], group = CHANNELS> ({x}, {depthwise}, {vector})",
    "{y} = Conv <pads = [1,1,1,1], group = 2> ({x}, {grouped})",
    "{y} = ConvTranspose <pads = [1,1,1,1]> ({x}, {transposed})",
    "{y} = BatchNormalization ({x}, {vector}, {vector2}, {vector3}, {varvector})",
    "{y} = InstanceNormalization ({x}, {vector}, {vector2})",
    "{y} = GroupNormalization <num_groups = 2> ({x}, {vector}, {vector2})",
    "{y} = MeanVarianceNormalization <axes = [2,3]> ({x})",
    "{y} = LpNormalization <axis = 3> ({x})",
    *(f"{{y}} = {op} <kernel_shape = [3,3], pads = [1,1,1,1]> ({{x}})"
      for op in ("MaxPool", "AveragePool", "LpPool")),
    *(f"{{a}} = {op} ({{x}}) {{y}} = Add ({{x}}, {{a}})"
      for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    *(f"{{a}} = {op} ({{x}}, {{sides}}) {{b}} = Tanh ({{a}}) {{y}} = Add ({{x}}, {{b}})"
      for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
                 "ReduceSumSquare", "ReduceLogSumExp")),
    "{a} = Sigmoid ({x}) {b} = ReduceLogSum ({a}, {sides}) {y} = Mul ({x}, {b})",
    "{a} = Sigmoid ({x}) {b} = ReduceProd ({a}, {last}) {y} = Mul ({x}, {b})",
    "{a} = Resize <mode = \"nearest\"> ({x}, , {scales}) "
    "{y} = MaxPool <kernel_shape = [2,2], strides = [2,2]> ({a})",
    "{a} = Pad ({x}, {pads}) {y} = AveragePool <kernel_shape = [3,3]> ({a})",
    "{a} = Slice ({x}, {one}, {end}, {last}) {b} = Tile ({a}, {twice}) "
    "{y} = Slice ({b}, {zero}, {side}, {last})",
    "{a} = DepthToSpace <blocksize = 2> ({x}) {b} = Tanh ({a}) "
    "{y} = SpaceToDepth <blocksize = 2> ({b})",
    "{a} = Reshape ({x}, {halves}) {b} = Transpose <perm = [0,2,1,3,4]> ({a}) "
    "{y} = Reshape ({b}, {whole})",
    "{a} = Shape ({x}) {b} = Relu ({x}) {c} = Flatten ({b}) {y} = Reshape ({c}, {a})",
    "{a} = GlobalAveragePool ({x}) {b} = Shape ({x}) {c} = Expand ({a}, {b}) {y} = Mul ({x}, {c})",
    "{a} = RoiAlign <output_height = 8, output_width = 8> ({x}, {windows}, {images}) "
    "{b} = ReduceMean ({a}, {zero}) {y} = Add ({x}, {b})",
    "{a} = Shape ({x}) {b} = ConstantOfShape ({a}) {c} = Expand ({places}, {a}) "
    "{y} = ScatterElements <axis = 3> ({b}, {c}, {x})",
    "{y} = CumSum ({x}, {three})",
    "{y} = Softmax <axis = 3> ({x})",
    "{y} = LogSoftmax <axis = 2> ({x})",
    "{y}, {a} = TopK <axis = 3> ({x}, {side})",
    "{y} = Einsum <equation = \"nchw,cd->ndhw\"> ({x}, {matrix})",
    "{a} = GlobalAveragePool ({x}) {b} = Conv ({a}, {squeeze}) {c} = Relu ({b}) "
    "{d} = Conv ({c}, {excite}) {e} = Sigmoid ({d}) {y} = Mul ({x}, {e})",
    "{a} = Conv <pads = [1,1,1,1]> ({x}, {same}) {y} = Add ({a}, {x})",
)  # fmt: skip
_TOKENS = (
    "{y} = LayerNormalization ({x}, {each}, {each2})",
    "{a} = MatMul ({x}, {same}) "
    "{y} = com.microsoft.SkipLayerNormalization ({x}, {a}, {each}, {each2})",
    "{a} = Mul ({x}, {x}) {b} = ReduceMean ({a}, {channel}) {c} = Add ({b}, {half}) "
    "{d} = Sqrt ({c}) {e} = Div ({x}, {d}) {y} = Mul ({e}, {each})",
    "{y} = MatMul ({x}, {matrix})",
    "{a} = MatMul ({x}, {matrix}) {y} = com.microsoft.FastGelu ({a}, {bias})",
    "{a} = MatMul ({x}, {matrix}) {y} = com.microsoft.BiasGelu ({a}, {bias})",
    "{a} = LSTM <hidden_size = 5> ({x}, {lstm}, {lstmstate}) {y} = Squeeze ({a}, {one})",
    "{a} = GRU <hidden_size = 5> ({x}, {gru}, {grustate}) {y} = Squeeze ({a}, {one})",
    "{a} = RNN <hidden_size = 5> ({x}, {rnn}, {rnnstate}) {y} = Squeeze ({a}, {one})",
    "{q} = MatMul ({x}, {same}) {k} = MatMul ({x}, {same2}) {v} = MatMul ({x}, {same3}) "
    "{a} = Reshape ({q}, {heads}) {b} = Transpose <perm = [0,2,1,3]> ({a}) "
    "{c} = Reshape ({k}, {heads}) {d} = Transpose <perm = [0,2,3,1]> ({c}) "
    "{e} = Reshape ({v}, {heads}) {f} = Transpose <perm = [0,2,1,3]> ({e}) "
    "{g} = MatMul ({b}, {d}) {h} = Softmax ({g}) {i} = MatMul ({h}, {f}) "
    "{j} = Transpose <perm = [0,2,1,3]> ({i}) {m} = Reshape ({j}, {tokens}) "
    "{n} = MatMul ({m}, {same4}) {y} = Add ({x}, {n})",
)

_Shape = Callable[[int, int], Weight]  # by the channels there are and those there will be
_WEIGHTS: Mapping[str, _Shape] = {
    "vector": lambda c, d: (c,),
    "varvector": lambda c, d: (c,),
    "bias": lambda c, d: (d,),
    "conv": lambda c, d: (d, c, 3, 3),
    "same": lambda c, d: (c, c),
    "matrix": lambda c, d: (c, d),
    "depthwise": lambda c, d: (c, 1, 3, 3),
    "grouped": lambda c, d: (c, c // 2, 3, 3),
    "transposed": lambda c, d: (c, d, 3, 3),
    "squeeze": lambda c, d: (d, c, 1, 1),
    "excite": lambda c, d: (c, d, 1, 1),
    "lstm": lambda c, d: (1, 20, c),
    "gru": lambda c, d: (1, 15, c),
    "rnn": lambda c, d: (1, 5, c),
    "lstmstate": lambda c, d: (1, 20, 5),
    "grustate": lambda c, d: (1, 15, 5),
    "rnnstate": lambda c, d: (1, 5, 5),
    "order": lambda c, d: np.random.default_rng(c).permutation(c),
    "half": lambda c, d: np.array(0.5, np.float32),
    "two": lambda c, d: np.array(2, np.float32),
    "minus": lambda c, d: np.array(-2, np.float32),
    "zero": lambda c, d: _ints(0),
    "one": lambda c, d: _ints(1),
    "three": lambda c, d: np.array(3),
    "end": lambda c, d: _ints(99),
    "side": lambda c, d: _ints(_SIDE),
    "last": lambda c, d: _ints(3),
    "sides": lambda c, d: _ints(2, 3),
    "scales": lambda c, d: np.array([1, 1, 2, 2], np.float32),
    "pads": lambda c, d: _ints(0, 0, 1, 1, 0, 0, 1, 1),
    "windows": lambda c, d: np.array([[0, 0, 4, 4], [2, 1, 7, 6]], np.float32),
    "images": lambda c, d: _ints(0, 0),
    "places": lambda c, d: np.array([[[[3, 1, 0, 2, 7, 5, 6, 4]]]]),
    "twice": lambda c, d: _ints(1, 1, 1, 2),
    "halves": lambda c, d: _ints(0, 2, c // 2, _SIDE, _SIDE),
    "whole": lambda c, d: _ints(0, c, _SIDE, _SIDE),
    "heads": lambda c, d: _ints(0, 0, 2, c // 2),
    "tokens": lambda c, d: _ints(0, 0, c),
}
_OF_IMAGES: Mapping[str, _Shape] = {
    "each": lambda c, d: (c, 1, 1),
    "vareach": lambda c, d: (c, 1, 1),
    "axis": lambda c, d: _ints(1),
    "same": lambda c, d: (c, c, 3, 3),
}
_OF_TOKENS: Mapping[str, _Shape] = {
    "each": lambda c, d: (c,),
    "vareach": lambda c, d: (c,),
    "axis": lambda c, d: _ints(2),
    "channel": lambda c, d: _ints(-1),
}
_NEW = ("conv", "transposed", "matrix")  # weights after which there are as many channels as drawn
_STATE = ("lstm", "gru", "rnn")  # after which there are five


class _Chain:
    """The text and weights so far, and the channels of its last value."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.text: list[str] = []
        self.weights: dict[str, Weight] = {}
        self.channels, self.last, self.count = 3, "x", 0

    def add(self, template: str, *, images: bool) -> None:
        """One step."""
        c, self.count = self.channels, self.count + 1
        d = self.random.choice((4, 8, 12))
        kinds = {**_WEIGHTS, **(_OF_IMAGES if images else _OF_TOKENS)}
        template = template.replace("AXIS", "1" if images else "2").replace("CHANNELS", str(c))
        fields = {field for _, field, _, _ in Formatter().parse(template) if field}
        names = {field: f"{field}_{self.count}" for field in fields}
        for field in sorted(fields):
            shape = kinds.get(field.rstrip("234"))
            if shape is not None:
                self.weights[names[field]] = shape(c, d)
        self.text.append(template.format(**{**names, "x": self.last}))
        self.last = names["y"]
        self.channels = 5 if fields & {*_STATE} else d if fields & {*_NEW} else c


def random_prunable(random: Random) -> Model:
    """From `x` [N, 3, 8, 8] to `y` [N, 5]; a few of the steps are drawn, all have even channels."""
    chain = _Chain(random)
    chain.add(_IMAGES[0], images=True)
    for _ in range(random.randint(2, 6)):
        chain.add(random.choice((*_IMAGES, *_IMAGES, *_EVERYWHERE)), images=True)
    if random.random() < 0.5:
        chain.weights["flat"] = _ints(0, 0, -1)
        chain.text.append(f"flat_ = Reshape ({chain.last}, flat)")
        chain.text.append("tokens_ = Transpose <perm = [0,2,1]> (flat_)")
        chain.last = "tokens_"
        for _ in range(random.randint(1, 4)):
            if chain.channels == 5:
                break  # nothing of a state can go
            chain.add(random.choice((*_TOKENS, *_TOKENS, *_EVERYWHERE)), images=False)
        chain.text.append(f"end_ = ReduceSum <keepdims = 0> ({chain.last}, places)")
        chain.weights["places"] = _ints(1)
    else:
        chain.text.append(f"end_ = ReduceSum <keepdims = 0> ({chain.last}, places)")
        chain.weights["places"] = _ints(2, 3)
    chain.weights["final"] = (chain.channels, 5)
    steps = "  ".join((*chain.text, "y = MatMul (end_, final)"))
    return build(f"g (float[N,3,8,8] x) => (float[N,5] y) {{ {steps} }}", chain.weights, OPSET)
