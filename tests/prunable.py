"""Small networks of the kinds that pruning has to follow, by name: text, weights, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxslim.ir import Array, Model
from tests.quantizing import build

HEADS, QK, VO = "attention heads", "query and key dimensions", "value dimensions"
CHANNELS, HIDDEN, GROUPS = "channels", "hidden units", "convolution groups"


@dataclass(frozen=True)
class Network:
    """`groups` are the kinds and sizes that must be found, in any order."""

    body: str
    weights: Mapping[str, Sequence[int] | Array]
    groups: tuple[tuple[str, int], ...]
    opset: int = 17
    sizes: tuple[Mapping[str, int], ...] = field(default=({"N": 1}, {"N": 3}))

    def model(self) -> Model:
        """The model with random weights."""
        return build(self.body, self.weights, self.opset)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


NETWORKS: dict[str, Network] = {
    "chain": Network(
        """g (float[N,3,8,8] x) => (float[N,5] y) {
          a = Conv <pads = [1,1,1,1]> (x, w1, b1)
          n = BatchNormalization (a, g1, b2, b3, var1)
          s = Sigmoid (n)
          b = Conv (s, w2)
          p = AveragePool <kernel_shape = [2,2]> (b)
          f = Flatten (p)
          y = Gemm <transB = 1> (f, w3, b4) }""",
        {
            "w1": (8, 3, 3, 3),
            "b1": (8,),
            "g1": (8,),
            "b2": (8,),
            "b3": (8,),
            "var1": (8,),
            "w2": (6, 8, 3, 3),
            "w3": (5, 150),
            "b4": (5,),
        },
        ((CHANNELS, 8), (CHANNELS, 6)),
    ),
    "residual": Network(
        """g (float[N,3,8,8] x) => (float[N,4,8,8] y) {
          a = Conv (x, w1)  r = Relu (a)
          b = Conv <pads = [1,1,1,1]> (r, w2)  q = PRelu (b, slope)
          c = Conv (q, w3)  s = Add (c, r)
          y = Conv (s, w4) }""",
        {
            "w1": (8, 3, 1, 1),
            "w2": (6, 8, 3, 3),
            "slope": (6, 1, 1),
            "w3": (8, 6, 1, 1),
            "w4": (4, 8, 1, 1),
        },
        ((CHANNELS, 8), (CHANNELS, 6)),
    ),
    "dense": Network(
        """g (float[N,3,4,4] x) => (float[N,4,4,4] y) {
          a = Conv (x, w1)  b = Conv (a, w2)  c = Concat <axis = 1> (a, b)
          d = Conv (c, w3)  e = Concat <axis = 1> (c, d)
          y = Conv (e, w4) }""",
        {"w1": (8, 3, 1, 1), "w2": (5, 8, 1, 1), "w3": (6, 13, 1, 1), "w4": (4, 19, 1, 1)},
        ((CHANNELS, 8), (CHANNELS, 5), (CHANNELS, 6)),
    ),
    "depthwise": Network(
        """g (float[N,3,8,8] x) => (float[N,4,3,3] y) {
          a = Conv (x, w1)  c = Clip (a, zero, six)
          d = Conv <group = 8> (c, w2, b2)
          e = Conv <group = 8, strides = [2,2]> (d, w3)
          y = Conv (e, w4) }""",
        {
            "w1": (8, 3, 1, 1),
            "w2": (8, 1, 3, 3),
            "b2": (8,),
            "w3": (16, 1, 2, 2),
            "w4": (4, 16, 1, 1),
        },
        ((CHANNELS, 8), (CHANNELS, 2)),
    ),
    "grouped": Network(
        """g (float[N,3,8,8] x) => (float[N,4,6,6] y) {
          a = Conv (x, w1)
          d = Conv <group = 4> (a, w2)
          y = Conv (d, w3) }""",
        {"w1": (8, 3, 1, 1), "w2": (12, 2, 3, 3), "w3": (4, 12, 1, 1)},
        ((GROUPS, 4), (CHANNELS, 2), (CHANNELS, 3)),
    ),
    "transposed": Network(
        """g (float[N,3,6] x) => (float[N,2,12] y) {
          a = Conv (x, w1)  b = ConvTranspose <strides = [2]> (a, w2, b2)
          c = ConvTranspose <group = 2> (b, w3)
          y = Conv (c, w4) }""",
        {"w1": (6, 3, 1), "w2": (6, 4, 2), "b2": (4,), "w3": (4, 3, 1), "w4": (2, 6, 1)},
        ((CHANNELS, 6), (GROUPS, 2), (CHANNELS, 2), (CHANNELS, 3)),
    ),
    "cube": Network(
        """g (float[N,2,4,4,4] x) => (float[N,3] y) {
          a = Conv (x, w1)  i = InstanceNormalization (a, s1, b1)
          m = GlobalAveragePool (i)  f = Reshape (m, shape)
          y = MatMul (f, w2) }""",
        {"w1": (6, 2, 2, 2, 2), "s1": (6,), "b1": (6,), "shape": ints(0, 6), "w2": (6, 3)},
        ((CHANNELS, 6),),
    ),
    "groupnorm": Network(
        """g (float[N,3,H,H] x) => (float[N,2,H,H] y) {
          a = Conv (x, w1)  r = Reshape (a, shape)
          n = InstanceNormalization (r, s1, b1)
          size = Shape (a)  b = Reshape (n, size)
          m = Mul (b, scale)  y = Conv (m, w2) }""",
        {
            "w1": (8, 3, 1, 1),
            "shape": ints(0, 4, -1),
            "s1": (4,),
            "b1": (4,),
            "scale": (8, 1, 1),
            "w2": (2, 8, 1, 1),
        },
        ((CHANNELS, 4),),
        sizes=({"N": 1, "H": 4}, {"N": 2, "H": 5}),
    ),
    "squeeze-excite": Network(
        """g (float[N,3,8,8] x) => (float[N,2,8,8] y) {
          a = Conv (x, w1)  m = ReduceMean <axes = [2, 3]> (a)
          d = Conv (m, w2, b2)  r = Relu (d)  u = Conv (r, w3)
          h = HardSigmoid (u)  s = Mul (a, h)
          y = Conv (s, w4) }""",
        {
            "w1": (8, 3, 1, 1),
            "w2": (3, 8, 1, 1),
            "b2": (3,),
            "w3": (8, 3, 1, 1),
            "w4": (2, 8, 1, 1),
        },
        ((CHANNELS, 8), (CHANNELS, 3)),
    ),
    "split": Network(
        """g (float[N,3,4,4] x) => (float[N,2,4,4] y) {
          a = Conv (x, w1)
          l, r = Split <axis = 1> (a, parts)
          g = Sigmoid (r)  m = Mul (l, g)
          s = Slice (m, from, to, along)
          t = Gather <axis = 1> (m, order)
          c = Concat <axis = 1> (s, t)
          y = Conv (c, w2) }""",
        {
            "w1": (12, 3, 1, 1),
            "parts": ints(6, 6),
            "from": ints(2),
            "to": ints(99),
            "along": ints(1),
            "order": ints(5, 0, 3),
            "w2": (2, 7, 1, 1),
        },
        ((CHANNELS, 2), (CHANNELS, 2)),
    ),
    "shuffle": Network(
        """g (float[N,3,4,4] x) => (float[N,2,4,4] y) {
          a = Conv (x, w1)
          five = Reshape (a, shape)  t = Transpose <perm = [0,2,1,3,4]> (five)
          four = Reshape (t, back)
          y = Conv (four, w2) }""",
        {
            "w1": (8, 3, 1, 1),
            "shape": ints(0, 2, 4, 4, 4),
            "back": ints(0, -1, 4, 4),
            "w2": (2, 8, 1, 1),
        },
        ((CHANNELS, 2), (CHANNELS, 4)),
    ),
    "pixels": Network(
        """g (float[N,3,4,4] x) => (float[N,2,4,4] y) {
          a = Conv (x, w1)  d = DepthToSpace <blocksize = 2, mode = "CRD"> (a)
          p = Pad (d, pads)
          s = SpaceToDepth <blocksize = 2> (p)
          q = Conv (s, w2)
          u = DepthToSpace <blocksize = 2> (q)
          y = MaxPool <kernel_shape = [2,2], strides = [3,3]> (u) }""",
        {"w1": (12, 3, 1, 1), "pads": ints(0, 0, 1, 1, 0, 0, 1, 1), "w2": (8, 12, 1, 1)},
        ((CHANNELS, 3),),
    ),
    "upsampled": Network(
        """g (float[N,3,4,4] x) => (float[N,2,8,8] y) {
          a = Conv (x, w1)
          r = Resize <mode = "nearest"> (a, , , target)
          y = Conv (r, w2) }""",
        {"w1": (6, 3, 1, 1), "target": ints(1, 6, 8, 8), "w2": (2, 6, 1, 1)},
        ((CHANNELS, 6),),
        sizes=({"N": 1},),
    ),
    "attention": Network(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
          q0 = MatMul (x, wq)  q1 = Add (q0, bq)  k0 = MatMul (x, wk)  v0 = MatMul (x, wv)
          q2 = Reshape (q1, split)  k2 = Reshape (k0, split)  v2 = Reshape (v0, split)
          q = Transpose <perm = [0,2,1,3]> (q2)  k = Transpose <perm = [0,2,3,1]> (k2)
          v = Transpose <perm = [0,2,1,3]> (v2)
          s = MatMul (q, k)  p = Softmax (s)  o = MatMul (p, v)
          o1 = Transpose <perm = [0,2,1,3]> (o)  o2 = Reshape (o1, merge)
          a = MatMul (o2, wo)  r = Add (a, x)
          n = LayerNormalization (r, ln)
          h = MatMul (n, w1)  g = Gelu (h)  m = MatMul (g, w2)
          y = Add (m, r) }""",
        {
            "wq": (8, 12),
            "bq": (12,),
            "wk": (8, 12),
            "wv": (8, 12),
            "split": ints(0, 0, 3, 4),
            "merge": ints(0, 0, 12),
            "wo": (12, 8),
            "ln": (8,),
            "w1": (8, 10),
            "w2": (10, 8),
        },
        ((HEADS, 3), (QK, 4), (VO, 4), (HIDDEN, 10)),
        opset=20,
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "computed shapes": Network(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
          size = Shape (x)  n = Gather (size, zeroth)  t = Gather (size, first)
          q0 = MatMul (x, wq)
          target = Concat <axis = 0> (n, t, heads, wide)  q1 = Reshape (q0, target)
          r = Relu (q1)  back = Concat <axis = 0> (n, t, minus)  q2 = Reshape (r, back)
          y = MatMul (q2, wo) }""",
        {
            "zeroth": ints(0),
            "first": ints(1),
            "heads": ints(3),
            "wide": ints(4),
            "minus": ints(-1),
            "wq": (8, 12),
            "wo": (12, 8),
        },
        ((HIDDEN, 3), (HIDDEN, 4)),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "grouped queries": Network(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
          q0 = MatMul (x, wq)  k0 = MatMul (x, wk)  v0 = MatMul (x, wv)
          q1 = Reshape (q0, six)  q = Transpose <perm = [0,2,1,3]> (q1)
          k1 = Reshape (k0, two)  k2 = Transpose <perm = [0,2,1,3]> (k1)
          v1 = Reshape (v0, two)  v2 = Transpose <perm = [0,2,1,3]> (v1)
          k3 = Unsqueeze (k2, second)  v3 = Unsqueeze (v2, second)
          n = Shape <start = 0, end = 1> (x)  t = Shape <start = 1, end = 2> (x)
          wide = Concat <axis = 0> (n, pair, t, four)
          k4 = Expand (k3, wide)  v4 = Expand (v3, wide)
          flat = Concat <axis = 0> (n, heads, t, four)
          k5 = Reshape (k4, flat)  v = Reshape (v4, flat)
          k = Transpose <perm = [0,1,3,2]> (k5)
          s = MatMul (q, k)  p = Softmax (s)  o = MatMul (p, v)
          o1 = Transpose <perm = [0,2,1,3]> (o)  o2 = Reshape (o1, merge)
          a = MatMul (o2, wo)
          g0 = MatMul (x, wg)  u0 = MatMul (x, wu)  g1 = Sigmoid (g0)  m = Mul (g1, u0)
          d = MatMul (m, wd)  y = Add (a, d) }""",
        {
            "wq": (8, 24),
            "wk": (8, 8),
            "wv": (8, 8),
            "six": ints(0, 0, 6, 4),
            "two": ints(0, 0, 2, 4),
            "second": ints(2),
            "pair": ints(2, 3),
            "four": ints(4),
            "heads": ints(6),
            "merge": ints(0, 0, 24),
            "wo": (24, 8),
            "wg": (8, 10),
            "wu": (8, 10),
            "wd": (10, 8),
        },
        ((HEADS, 2), (HEADS, 3), (QK, 4), (VO, 4), (HIDDEN, 10)),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "fused weight": Network(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
          a = MatMul (x, w)  b = Add (a, bias)
          q0, k0, v0 = Split <axis = 2> (b, parts)
          q1 = Reshape (q0, split)  k1 = Reshape (k0, split)  v1 = Reshape (v0, split)
          q = Transpose <perm = [0,2,1,3]> (q1)  k = Transpose <perm = [0,2,3,1]> (k1)
          v = Transpose <perm = [0,2,1,3]> (v1)
          s = MatMul (q, k)  p = Softmax (s)  o = MatMul (p, v)
          o1 = Transpose <perm = [0,2,1,3]> (o)  o2 = Reshape (o1, merge)
          y = MatMul (o2, wo) }""",
        {
            "w": (8, 36),
            "bias": (36,),
            "parts": ints(12, 12, 12),
            "split": ints(0, 0, 3, 4),
            "merge": ints(0, 0, 12),
            "wo": (12, 8),
        },
        ((HEADS, 3), (QK, 4), (VO, 4)),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "rotary": Network(
        """g (float[N,T,8] x) => (float[N,T,T] y) {
          q = MatMul (x, wq)  k = MatMul (x, wk)
          a = Slice (q, zero_, four, last)  b = Slice (q, four, end, last)  n = Neg (b)
          r = Concat <axis = -1> (n, a)
          c0 = Cos (angle)  s0 = Sin (angle)
          c = Concat <axis = -1> (c0, c0)  s = Concat <axis = -1> (s0, s0)
          q1 = Mul (q, c)  r1 = Mul (r, s)  q2 = Add (q1, r1)
          t = Transpose <perm = [0,2,1]> (k)
          y = MatMul (q2, t) }""",
        {
            "wq": (8, 8),
            "wk": (8, 8),
            "zero_": ints(0),
            "four": ints(4),
            "end": ints(2**62),
            "last": ints(2),
            "angle": (4,),
        },
        ((QK, 4),),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "merged heads": Network(
        """g (float[T,N,8] x) => (float[T,N,8] y) {
          s = Shape (x)  t = Gather (s, zero_)  n = Gather (s, one_)  h = Mul (n, three_)
          each = Concat <axis = 0> (t, h, four_)  all = Concat <axis = 0> (t, n, open_)
          q = MatMul (x, wq)  qh = Reshape (q, each)  qt = Transpose <perm = [1,0,2]> (qh)
          k = MatMul (x, wk)  kh = Reshape (k, each)  kt = Transpose <perm = [1,2,0]> (kh)
          v = MatMul (x, wv)  vh = Reshape (v, each)  vt = Transpose <perm = [1,0,2]> (vh)
          a = MatMul (qt, kt)  p = Softmax (a)  o = MatMul (p, vt)
          ot = Transpose <perm = [1,0,2]> (o)  c = Reshape (ot, all)  y = MatMul (c, wo) }""",
        {
            "wq": (8, 12),
            "wk": (8, 12),
            "wv": (8, 12),
            "wo": (12, 8),
            "zero_": ints(0),
            "one_": ints(1),
            "three_": ints(3),
            "four_": ints(4),
            "open_": ints(-1),
        },
        ((HEADS, 3), (QK, 4), (VO, 4)),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "standard attention": Network(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
          q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
          o = Attention <q_num_heads = 6, kv_num_heads = 3> (q, k, v)
          y = MatMul (o, wo) }""",
        {"wq": (8, 24), "wk": (8, 12), "wv": (8, 12), "wo": (24, 8)},
        ((HEADS, 3), (HEADS, 2)),
        opset=23,
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "packed attention": Network(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
          a = MatMul (x, w0)
          o = com.microsoft.Attention <num_heads = 3> (a, w, b)
          y = MatMul (o, wo) }""",
        {"w0": (8, 6), "w": (6, 36), "b": (36,), "wo": (12, 8)},
        ((HIDDEN, 6), (HEADS, 3)),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "multi-head attention": Network(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
          q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
          o = com.microsoft.MultiHeadAttention <num_heads = 3> (q, k, v, b)
          y = MatMul (o, wo) }""",
        {"wq": (8, 12), "wk": (8, 12), "wv": (8, 12), "b": (36,), "wo": (12, 8)},
        ((HEADS, 3),),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "einsum": Network(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
          a = Einsum <equation = "btc,ch->bth"> (x, w1)  r = Relu (a)
          s = ReduceL2 <axes = [2], keepdims = 1> (r)  u = Div (r, s)
          y = Einsum <equation = "bth,hc->btc"> (u, w2) }""",
        {"w1": (8, 6), "w2": (6, 8)},
        ((HIDDEN, 6),),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
    "recurrent": Network(
        """g (float[T,N,4] x) => (float[T,N,3] y) {
          a = MatMul (x, w1)  r = Tanh (a)
          h, , = LSTM <hidden_size = 5> (r, w2, w3)
          f = Squeeze (h, one_)
          y = MatMul (f, w4) }""",
        {"w1": (4, 6), "w2": (1, 20, 6), "w3": (1, 20, 5), "one_": ints(1), "w4": (5, 3)},
        ((HIDDEN, 6),),
        sizes=({"N": 1, "T": 5}, {"N": 2, "T": 3}),
    ),
}
