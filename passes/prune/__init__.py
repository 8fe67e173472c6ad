"""Structured pruning: units that the dimension analysis found go, and the rest is repaired.

`prune` is the pass; what goes together comes from `onnxslim/analyses/axes`. What goes is chosen
(`choose`: `evidence` of the samples, `importance` and `score` of units, `trial` of groups, and a
`budget` over them), then cut and repaired (`repair`: `compensate` fits the readers, `rewrite` says
what becomes of each operator, `cut` does it, and `safety` compares it with the `mask`ed original).
`depth` lets whole blocks go.
"""
