"""Networks of convolutions, and what moves, joins or splits their channels."""

from __future__ import annotations

from tests.prunable.network import CHANNELS, GROUPS, Network, ints

IMAGES: dict[str, Network] = {
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
}
