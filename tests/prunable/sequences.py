"""Attention as exporters write it and as fused operators, and what else mixes a sequence."""

from __future__ import annotations

from tests.prunable.network import HEADS, HIDDEN, QK, VO, Network, ints

SEQUENCES: dict[str, Network] = {
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
