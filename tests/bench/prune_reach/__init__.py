"""How far pruning reaches: `python -m tests.bench.prune_reach.run --out docs/PRUNE_REACH.md`."""
