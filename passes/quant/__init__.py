"""Quantization: int8 weights and activations where the target runs them fast.

`quant` is the pass, `schemes` the table of what it can do, `steps` what schemes are made of, and
`rivals` what `auto` makes of a language model. Static quantization (`static`) walks through the
folders in this order: `prepare` the graph, `know` the ranges, round the `weights`, decide where
int8 pays (`place`) and what serves the outputs (`choose`), `rewrite` the graph, and `audit` what
ONNX Runtime makes of it. `weight_only` stores weights in blocks.
"""
