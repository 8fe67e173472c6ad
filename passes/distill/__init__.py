"""Distillation: the model as loaded teaches what the passes made of it.

`distill` is the pass. `layer` fits each layer in closed form; `gradient` trains the student, which
`graph/` runs by torch, operator by operator from the tables in `graph/ops/`. `grids` keeps what is
quantized on its grid.
"""
