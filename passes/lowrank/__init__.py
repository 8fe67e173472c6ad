"""Low rank: a linear layer becomes two smaller ones.

`lowrank` is the pass. What can be cut is found (`survey`, `units`) and measured once (`gather`:
`candidates` with their losses from the mathematics in `svd`, `tucker`, `joint` and `table`, what
errors do to the outputs in `gain`, milliseconds in `timing`). One choice is made for the whole
model (`choices`, `budget`, `select`) and corrected by the clock (`settle`); it is written
(`write`, `emit`) and the last factors are fitted again (`passes/refit`).
"""
